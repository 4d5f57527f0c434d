//! A client of the Container Runtime Interface, like the kubelet.
//!
//! Requests are protobuf messages with a few fields. `curl` sends them as gRPC requires: over HTTP/2,
//! each message after a byte and its length, the status in a trailer. The field numbers are those of
//! `runtime.v1` in `api.proto`.

use tests::{Cmd, NODE};

use crate::node::Node;

/// A protobuf message that is being built.
#[derive(Clone, Debug, Default)]
struct Message(Vec<u8>);

impl Message {
    fn new() -> Self {
        Self::default()
    }

    fn bytes(mut self, field: u8, value: &[u8]) -> Self {
        self.0.push(field << 3 | 2);
        self.varint(value.len());
        self.0.extend(value);
        self
    }

    fn text(self, field: u8, value: &str) -> Self {
        self.bytes(field, value.as_bytes())
    }

    fn message(self, field: u8, value: &Self) -> Self {
        self.bytes(field, &value.0)
    }

    fn number(mut self, field: u8, value: u16) -> Self {
        self.0.push(field << 3);
        self.varint(value.into());
        self
    }

    /// Seven bits a byte, the lowest first; the eighth bit is set if more bytes follow.
    fn varint(&mut self, value: usize) {
        let mut rest = value;
        while rest > 0x7f {
            self.0.push(rest.to_le_bytes()[0] | 0x80);
            rest >>= 7;
        }
        self.0.push(rest.to_le_bytes()[0]);
    }
}

/// A pod as the kubelet requests it.
#[derive(Clone, Debug, Default)]
pub(crate) struct PodRequest {
    name: String,
    ports: Vec<Message>,
    annotations: Vec<Message>,
}

impl PodRequest {
    pub(crate) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }

    /// Adds a TCP port mapping.
    pub(crate) fn port(self, host: u16, pod: u16) -> Self {
        self.port_on("", host, pod)
    }

    /// The same for one address of the node.
    pub(crate) fn port_on(mut self, host_ip: &str, host: u16, pod: u16) -> Self {
        let mapping = Message::new().number(2, pod).number(3, host).text(4, host_ip);
        self.ports.push(mapping);
        self
    }

    /// Adds a UDP port mapping.
    pub(crate) fn udp_port(mut self, host: u16, pod: u16) -> Self {
        self.ports.push(Message::new().number(1, 1).number(2, pod).number(3, host));
        self
    }

    pub(crate) fn annotation(mut self, key: &str, value: &str) -> Self {
        self.annotations.push(Message::new().text(1, key).text(2, value));
        self
    }

    /// `PodSandboxConfig`.
    fn config(&self, cgroup: &str) -> Message {
        let metadata = Message::new()
            .text(1, &self.name)
            .text(2, &format!("uid-{}", self.name))
            .text(3, "default");
        let mut config =
            Message::new().message(1, &metadata).text(2, &self.name).text(3, "/run/logs");
        for mapping in &self.ports {
            config = config.message(5, mapping);
        }
        for annotation in &self.annotations {
            config = config.message(7, annotation);
        }
        config.message(8, &Message::new().text(1, cgroup))
    }
}

/// The service on a Unix socket of a node.
#[derive(Debug)]
pub(crate) struct Cri<'a> {
    node: &'a Node,
    socket: &'static str,
}

impl<'a> Cri<'a> {
    pub(crate) fn new(node: &'a Node, socket: &'static str) -> Self {
        Self { node, socket }
    }

    /// Whether the service answers.
    pub(crate) fn is_up(&self) -> bool {
        self.call("Version", &Message::new()).is_ok()
    }

    /// Creates and starts a pod without containers; returns its ID.
    pub(crate) fn run_pod(&self, pod: &PodRequest) -> Result<String, String> {
        let config = pod.config(&self.node.cgroup);
        self.call("RunPodSandbox", &Message::new().message(1, &config))
    }

    /// Starts a web server in a pod.
    pub(crate) fn serve(&self, id: &str, pod: &PodRequest, image: &str) {
        let mut container = Message::new()
            .message(1, &Message::new().text(1, "web"))
            .message(2, &Message::new().text(1, image));
        for word in ["/bin/httpd", "-f", "-p", "80", "-h", "/www"] {
            container = container.text(3, word);
        }
        let request = Message::new()
            .text(1, id)
            .message(2, &container.text(11, "web.log"))
            .message(3, &pod.config(&self.node.cgroup));
        let container = self.call("CreateContainer", &request).unwrap();
        self.call("StartContainer", &Message::new().text(1, &container)).unwrap();
    }

    pub(crate) fn stop_pod(&self, id: &str) {
        self.call("StopPodSandbox", &Message::new().text(1, id)).unwrap();
    }

    pub(crate) fn remove_pod(&self, id: &str) {
        self.call("RemovePodSandbox", &Message::new().text(1, id)).unwrap();
    }

    /// Calls a method; returns the first string of the response, or the error.
    fn call(&self, method: &str, request: &Message) -> Result<String, String> {
        // Requests run at the same time.
        let file = format!("/run/{method}-{:?}", std::thread::current().id());
        let frame = |message: &[u8]| {
            let length = u32::try_from(message.len()).unwrap();
            [&[0], &length.to_be_bytes()[..], message].concat()
        };
        self.node.write(&file, &frame(&request.0));
        let answer = format!("{file}.answer");
        let curl = Cmd::new("curl")
            .args(["-sS", "--http2-prior-knowledge", "--unix-socket", self.socket])
            .args(["-H", "Content-Type: application/grpc", "-H", "TE: trailers"])
            .args(["--data-binary", &format!("@{file}"), "-o", &answer, "-D", "-"])
            .arg(format!("http://localhost/runtime.v1.RuntimeService/{method}"));
        let output = self.node.world.run(NODE, &curl);
        let trailer = |name: &str| {
            let lines = output.stdout.lines().filter_map(|line| line.split_once(": "));
            lines.filter(|(key, _)| *key == name).map(|(_, value)| value.trim().to_owned()).next()
        };
        match trailer("grpc-status").as_deref() {
            Some("0") => Ok(first_text(&self.node.read(&answer))),
            Some(_) => Err(trailer("grpc-message").unwrap_or_default()),
            None => Err(output.to_string()),
        }
    }
}

/// The first field of the message in a frame, which is a short string or is not used.
fn first_text(frame: &[u8]) -> String {
    let text = frame.get(5..).and_then(|message| match message {
        [0x0a, length, rest @ ..] => rest.get(..usize::from(*length)),
        _ => None,
    });
    String::from_utf8_lossy(text.unwrap_or_default()).into_owned()
}
