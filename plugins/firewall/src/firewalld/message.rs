//! D-Bus messages: calls with strings as arguments, and their answers (D-Bus specification, "Marshaling" and
//! "Message Protocol").

/// A method of an object on the bus.
#[derive(Clone, Copy, Debug)]
pub(super) struct Method<'a> {
    pub(super) destination: &'a str,
    pub(super) path: &'a str,
    pub(super) interface: &'a str,
    pub(super) name: &'a str,
}

/// A message from the bus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) kind: Kind,
    /// The serial number of the call that it answers.
    pub(super) answers: Option<u32>,
    pub(super) value: Value,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Return,
    /// With the error's name.
    Error(String),
    Other,
}

/// The first value of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    String(String),
    Boolean(bool),
    Other,
}

/// The length of the fixed part of a message. It contains the lengths of the other parts.
pub(super) const FIXED: usize = 16;

/// The longest message that is read. The specification's limit is 128 MiB.
const LENGTH_MAX: usize = 1 << 20;

const LITTLE_ENDIAN: u8 = b'l';
const METHOD_CALL: u8 = 1;
const METHOD_RETURN: u8 = 2;
const ERROR: u8 = 3;
/// The bus must not start the program that is called.
const NO_AUTO_START: u8 = 2;
const VERSION: u8 = 1;

const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SIGNATURE: u8 = 8;

/// A call with strings as its arguments.
pub(super) fn call(serial: u32, method: Method<'_>, arguments: &[&str]) -> Vec<u8> {
    let (mut body, mut fields) = (Vec::new(), Vec::new());
    for text in arguments {
        push_string(&mut body, text);
    }
    for (code, kind, text) in [
        (PATH, b'o', method.path),
        (INTERFACE, b's', method.interface),
        (MEMBER, b's', method.name),
        (DESTINATION, b's', method.destination),
    ] {
        pad(&mut fields, 8);
        fields.extend([code, 1, kind, 0]);
        push_string(&mut fields, text);
    }
    if !arguments.is_empty() {
        pad(&mut fields, 8);
        let count = u8::try_from(arguments.len()).unwrap_or(u8::MAX);
        fields.extend([SIGNATURE, 1, b'g', 0, count]);
        fields.extend(arguments.iter().map(|_| b's').chain([0]));
    }
    let mut all = vec![LITTLE_ENDIAN, METHOD_CALL, NO_AUTO_START, VERSION];
    let numbers = [length(&body), serial, length(&fields)];
    all.extend(numbers.into_iter().flat_map(u32::to_le_bytes));
    all.extend(fields);
    pad(&mut all, 8);
    all.extend(body);
    all
}

/// How many bytes follow the fixed part; `None` if this is not a valid message.
pub(super) fn rest_length(fixed: &[u8; FIXED]) -> Option<usize> {
    let mut reader = Reader { bytes: fixed, at: 4, little: is_little(fixed[0])? };
    let (body, _, fields) = (reader.number()?, reader.number()?, reader.number()?);
    let fields = usize::try_from(fields).ok()?.checked_next_multiple_of(8)?;
    let rest = fields.checked_add(usize::try_from(body).ok()?)?;
    (rest <= LENGTH_MAX).then_some(rest)
}

impl Message {
    /// Reads a message; `None` if it is not valid.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader { bytes, at: 12, little: is_little(*bytes.first()?)? };
        let end = FIXED + usize::try_from(reader.number()?).ok()?;
        let (mut answers, mut name, mut signature) = (None, String::new(), String::new());
        while reader.at < end {
            reader.skip_to(8);
            let code = reader.byte()?;
            let kind = reader.signature()?;
            match (code, kind.as_str()) {
                (ERROR_NAME, "s") => name = reader.string()?,
                (REPLY_SERIAL, "u") => answers = Some(reader.number()?),
                (SIGNATURE, "g") => signature = reader.signature()?,
                (_, "s" | "o") => drop(reader.string()?),
                (_, "u") => drop(reader.number()?),
                (_, "g") => drop(reader.signature()?),
                _ => return None,
            }
        }
        reader.skip_to(8);
        let value = match signature.chars().next() {
            Some('s') => Value::String(reader.string()?),
            Some('b') => Value::Boolean(reader.number()? != 0),
            _ => Value::Other,
        };
        let kind = match *bytes.get(1)? {
            METHOD_RETURN => Kind::Return,
            ERROR => Kind::Error(name),
            _ => Kind::Other,
        };
        Some(Self { kind, answers, value })
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    little: bool,
}

impl Reader<'_> {
    fn take(&mut self, len: usize) -> Option<&[u8]> {
        let end = self.at.checked_add(len)?;
        let taken = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    fn skip_to(&mut self, multiple: usize) {
        self.at = self.at.next_multiple_of(multiple);
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|one| one[0])
    }

    fn number(&mut self) -> Option<u32> {
        self.skip_to(4);
        let little = self.little;
        let bytes = self.take(4)?.first_chunk().copied()?;
        Some(if little { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) })
    }

    fn string(&mut self) -> Option<String> {
        let len = usize::try_from(self.number()?).ok()?;
        self.zero_terminated(len)
    }

    fn signature(&mut self) -> Option<String> {
        let len = self.byte()?.into();
        self.zero_terminated(len)
    }

    fn zero_terminated(&mut self, len: usize) -> Option<String> {
        let text = self.take(len)?.to_vec();
        (self.byte()? == 0).then_some(())?;
        String::from_utf8(text).ok()
    }
}

fn is_little(byte: u8) -> Option<bool> {
    [b'B', LITTLE_ENDIAN].iter().position(|it| *it == byte).map(|at| at == 1)
}

fn push_string(to: &mut Vec<u8>, text: &str) {
    pad(to, 4);
    to.extend(length(text.as_bytes()).to_le_bytes());
    to.extend(text.bytes());
    to.push(0);
}

fn pad(bytes: &mut Vec<u8>, multiple: usize) {
    bytes.resize(bytes.len().next_multiple_of(multiple), 0);
}

fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
