//! A web page, served in a pod and fetched from other machines.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use super::error::DemoError;
use super::machine::Machine;

const PATIENCE: Duration = Duration::from_secs(5);

/// Serves a page on the machine until this program ends.
pub(super) fn serve(pod: &Machine, port: u16, text: &'static str) -> Result<(), DemoError> {
    let served = pod.run(move || -> io::Result<()> {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?;
        // The thread starts in the pod's namespace and stays there.
        thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                // The client reports the error.
                let _ = answer(&connection, text);
            }
        });
        Ok(())
    });
    served.map_err(|error| DemoError::Page("serve the page".to_owned(), error.to_string()))
}

/// Fetches the page and compares it.
pub(super) fn fetch(
    from: &Machine,
    address: SocketAddr,
    expected: &str,
    what: &str,
) -> Result<(), DemoError> {
    let page = from.run(move || request(address)).map_err(|error| {
        DemoError::Page(what.to_owned(), format!("fetch http://{address}/: {error}"))
    })?;
    if page == expected {
        return Ok(());
    }
    Err(DemoError::Page(what.to_owned(), format!("http://{address}/ has another page: {page:?}")))
}

/// Checks that the port does not answer.
pub(super) fn no_answer(from: &Machine, address: SocketAddr) -> Result<(), DemoError> {
    match from.run(move || TcpStream::connect_timeout(&address, PATIENCE)) {
        Err(_) => Ok(()),
        Ok(_) => {
            Err(DemoError::Page("after DEL".to_owned(), format!("http://{address}/ still answers")))
        }
    }
}

fn answer(mut connection: &TcpStream, text: &str) -> io::Result<()> {
    connection.set_read_timeout(Some(PATIENCE))?;
    // Closing the connection before the whole request is read would cut off the answer.
    for line in BufReader::new(connection).lines() {
        if line?.is_empty() {
            break;
        }
    }
    let length = text.len();
    let page = format!("HTTP/1.0 200 OK\r\nContent-Length: {length}\r\n\r\n{text}");
    connection.write_all(page.as_bytes())
}

fn request(address: SocketAddr) -> io::Result<String> {
    let mut connection = TcpStream::connect_timeout(&address, PATIENCE)?;
    connection.set_read_timeout(Some(PATIENCE))?;
    connection.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer)?;
    let page = answer.split_once("\r\n\r\n").map(|(_, page)| page.to_owned());
    page.ok_or_else(|| io::Error::other(format!("no page: {answer:?}")))
}
