//! A page, served in the pod and fetched from elsewhere.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use super::DemoError;
use super::machine::Machine;

const TEXT: &str = "hello from the pod";
const PATIENCE: Duration = Duration::from_secs(5);

/// Serves the page on the machine until this program ends.
pub(super) fn serve(pod: &Machine, port: u16) -> Result<(), DemoError> {
    let served = pod.run(move || -> io::Result<()> {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?;
        // The thread is born in the pod's namespace, and stays there.
        thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                // Whoever fetches says what went wrong.
                let _ = answer(&connection);
            }
        });
        Ok(())
    });
    served.map_err(|error| DemoError::Page("serve the page", error.to_string()))
}

/// Fetches the page and compares it.
pub(super) fn fetch(
    from: &Machine,
    address: SocketAddr,
    what: &'static str,
) -> Result<(), DemoError> {
    let page = from
        .run(move || get(address))
        .map_err(|error| DemoError::Page(what, format!("fetch http://{address}/: {error}")))?;
    if page.ends_with(TEXT) {
        return Ok(());
    }
    Err(DemoError::Page(what, format!("http://{address}/ has another page: {page:?}")))
}

/// Makes sure that nobody answers.
pub(super) fn no_answer(from: &Machine, address: SocketAddr) -> Result<(), DemoError> {
    match from.run(move || TcpStream::connect_timeout(&address, PATIENCE)) {
        Err(_) => Ok(()),
        Ok(_) => Err(DemoError::Page("after DEL", format!("http://{address}/ still answers"))),
    }
}

fn answer(mut connection: &TcpStream) -> io::Result<()> {
    connection.set_read_timeout(Some(PATIENCE))?;
    // Closing before the whole request is read would cut the answer short.
    for line in BufReader::new(connection).lines() {
        if line?.is_empty() {
            break;
        }
    }
    let length = TEXT.len();
    let page = format!("HTTP/1.0 200 OK\r\nContent-Length: {length}\r\n\r\n{TEXT}");
    connection.write_all(page.as_bytes())
}

fn get(address: SocketAddr) -> io::Result<String> {
    let mut connection = TcpStream::connect_timeout(&address, PATIENCE)?;
    connection.set_read_timeout(Some(PATIENCE))?;
    let request = format!("GET / HTTP/1.0\r\nHost: {}\r\n\r\n", address.ip());
    connection.write_all(request.as_bytes())?;
    let mut page = String::new();
    connection.read_to_string(&mut page)?;
    Ok(page)
}
