//! A responder to HTTP/1.1 requests for one text. Everything that a client may use up is bounded: how many there are at
//! once, how long a request is, how long it and its answer may take. No client can hold up the tracing, for a text is
//! made once and handed out as a copy.

use super::clients::{Asked, Clients};
use super::exposition::CONTENT_TYPE;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};

/// Bytes of a request's head.
const HEAD: usize = 8 << 10;
/// How long a client may take to ask: it asks as soon as it is connected.
const ASKING: Duration = Duration::from_secs(2);
/// How long it may take to take the answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the answer may be in the making.
const MAKING: Duration = Duration::from_secs(30);
/// What is still read, and for how long, of a request that was refused: else the refusal would be lost with it.
const REST: (u64, Duration) = (64 << 10, Duration::from_secs(1));

/// A client waits for the text.
pub type Request = oneshot::Sender<Arc<str>>;

/// Listens for clients.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
}

impl Server {
    /// Listens at an address, from now on.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        Ok(Self { listener: TcpListener::bind(address).await? })
    }

    /// Where it listens: the port may have been chosen by the kernel.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers clients; asks for the text through `requests`.
    pub async fn serve(self, requests: mpsc::Sender<Request>) {
        let mut clients = Clients::default();
        loop {
            let (stream, address) = match self.listener.accept().await {
                Ok((stream, address)) => (stream, address.ip()),
                Err(error) => {
                    // No descriptor is free, or the client has gone again: neither is worth ending for.
                    tracing::debug!(%error, "accepting a client");
                    sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let requests = requests.clone();
            if !clients.admit(address) {
                refuse_at_once(&stream);
                continue;
            }
            let asked = Asked::default();
            let heard = Arc::clone(&asked);
            let task = tokio::spawn(async move {
                if let Err(error) = answer(stream, &requests, &heard).await {
                    tracing::debug!(%error, "answering a client");
                }
            });
            clients.add(address, task.abort_handle(), asked);
        }
    }
}

/// What a request comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Metrics { body: bool },
    Index { body: bool },
    Refused(&'static str),
}

async fn answer(mut stream: TcpStream, requests: &mpsc::Sender<Request>, asked: &Asked) -> io::Result<()> {
    let head = timeout(ASKING, head(&mut stream)).await;
    asked.store(true, Ordering::Relaxed);
    let answer = match head {
        Ok(Ok(Some(head))) => judge(&head),
        Ok(Ok(None)) => Answer::Refused("431 Request Header Fields Too Large"),
        Ok(Err(error)) => return Err(error),
        Err(_) => Answer::Refused("408 Request Timeout"),
    };
    let (status, text, body) = match answer {
        Answer::Metrics { body } => match text(requests).await {
            Some(text) => ("200 OK", text, body),
            None => ("503 Service Unavailable", Arc::from("The trace has ended, or is busy.\n"), body),
        },
        Answer::Index { body } => ("200 OK", Arc::from("kvmtrace: the metrics are at /metrics\n"), body),
        Answer::Refused(status) => (status, Arc::from(format!("{status}\n")), true),
    };
    let head = response_head(status, text.len());
    let sent = async {
        stream.write_all(head.as_bytes()).await?;
        if body {
            stream.write_all(text.as_bytes()).await?;
        }
        stream.shutdown().await
    };
    timeout(PATIENCE, sent).await.map_err(io::Error::from)??;
    if matches!(answer, Answer::Refused(_)) {
        let (bytes, time) = REST;
        let mut rest = stream.take(bytes);
        let rest = timeout(time, tokio::io::copy(&mut rest, &mut tokio::io::sink())).await;
        tracing::trace!(?rest, "the rest of a refused request");
    }
    Ok(())
}

/// Too many at once: told if the socket's buffer takes it, and not waited for.
fn refuse_at_once(stream: &TcpStream) {
    let status = "503 Service Unavailable";
    let refused = stream.try_write(format!("{}{status}\n", response_head(status, status.len() + 1)).as_bytes());
    tracing::debug!(?refused, "too many clients");
}

fn response_head(status: &str, length: usize) -> String {
    let allow = if status.starts_with("405") { "Allow: GET, HEAD\r\n" } else { "" };
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {CONTENT_TYPE}\r\nContent-Length: {length}\r\n{allow}Connection: close\r\n\r\n"
    )
}

/// The head of a request; none when it is too long.
async fn head(stream: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    let mut head = Vec::with_capacity(1024);
    loop {
        if stream.read_buf(&mut head).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if is_whole(&head) {
            return Ok(Some(head));
        }
        if head.len() >= HEAD {
            return Ok(None);
        }
    }
}

fn is_whole(head: &[u8]) -> bool {
    head.windows(4).any(|end| end == b"\r\n\r\n") || head.windows(2).any(|end| end == b"\n\n")
}

fn judge(head: &[u8]) -> Answer {
    let line = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let words: Vec<&str> = line.split_whitespace().collect();
    let [method, target, version] = words.as_slice() else { return Answer::Refused("400 Bad Request") };
    if !version.starts_with("HTTP/1.") {
        return Answer::Refused("505 HTTP Version Not Supported");
    }
    let body = match *method {
        "GET" => true,
        "HEAD" => false,
        _ => return Answer::Refused("405 Method Not Allowed"),
    };
    match target.split('?').next().unwrap_or_default() {
        "/metrics" => Answer::Metrics { body },
        "/" => Answer::Index { body },
        _ => Answer::Refused("404 Not Found"),
    }
}

async fn text(requests: &mpsc::Sender<Request>) -> Option<Arc<str>> {
    let (reply, text) = oneshot::channel();
    requests.send(reply).await.ok()?;
    timeout(MAKING, text).await.ok()?.ok()
}

#[cfg(test)]
mod tests {
    use super::super::clients::CLIENTS;
    use super::*;
    use rstest::rstest;

    /// A server with this text; what a client is answered that sends these bytes.
    async fn asked(bytes: &[u8]) -> String {
        let server = Server::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = server.address().unwrap();
        let (requests, mut asked) = mpsc::channel::<Request>(1);
        tokio::spawn(server.serve(requests));
        tokio::spawn(async move {
            while let Some(request) = asked.recv().await {
                request.send(Arc::from("up 1\n")).unwrap();
            }
        });
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(bytes).await.unwrap();
        let mut answer = String::new();
        timeout(Duration::from_secs(10), client.read_to_string(&mut answer)).await.unwrap().unwrap();
        answer
    }

    #[rstest]
    #[case::metrics("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", "200 OK", Some("up 1\n"))]
    #[case::query("GET /metrics?x=1 HTTP/1.0\n\n", "200 OK", Some("up 1\n"))]
    #[case::head("HEAD /metrics HTTP/1.1\r\n\r\n", "200 OK", Some(""))]
    #[case::index("GET / HTTP/1.1\r\n\r\n", "200 OK", Some("kvmtrace: the metrics are at /metrics\n"))]
    #[case::elsewhere("GET /etc HTTP/1.1\r\n\r\n", "404 Not Found", None)]
    #[case::method("POST /metrics HTTP/1.1\r\n\r\n", "405 Method Not Allowed", None)]
    #[case::version("GET /metrics HTTP/2\r\n\r\n", "505 HTTP Version Not Supported", None)]
    #[case::nonsense("\u{1}\u{2}\r\n\r\n", "400 Bad Request", None)]
    #[tokio::test]
    async fn requests_are_answered(#[case] request: &str, #[case] status: &str, #[case] body: Option<&str>) {
        let answer = asked(request.as_bytes()).await;
        let (head, told) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{head}");
        assert!(head.contains("Connection: close"), "{head}");
        if let Some(body) = body {
            assert_eq!(told, body);
            assert!(head.contains("text/plain; version=0.0.4"), "{head}");
        }
    }

    #[tokio::test]
    async fn a_request_without_end_is_refused() {
        let answer = asked(&[b"GET /metrics HTTP/1.1\r\nX: ".as_slice(), &[b'a'; HEAD]].concat()).await;
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    }

    #[tokio::test]
    async fn clients_that_say_nothing_hold_nobody_up_for_long() {
        let server = Server::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = server.address().unwrap();
        let (requests, _asked) = mpsc::channel::<Request>(1);
        tokio::spawn(server.serve(requests));
        let mut silent = Vec::new();
        for _ in 0..CLIENTS * 2 {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        // One that asks is answered at once all the same.
        let mut answer = String::new();
        let mut late = TcpStream::connect(address).await.unwrap();
        late.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        timeout(Duration::from_secs(1), late.read_to_string(&mut answer)).await.unwrap().unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        // The first had to make room; the last is told after a while.
        answer.clear();
        let ended = timeout(Duration::from_secs(1), silent[0].read_to_string(&mut answer)).await.unwrap();
        assert!(ended.is_err() || answer.is_empty(), "{answer}");
        answer.clear();
        let last = silent.last_mut().unwrap();
        timeout(ASKING * 2, last.read_to_string(&mut answer)).await.unwrap().unwrap();
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    }
}
