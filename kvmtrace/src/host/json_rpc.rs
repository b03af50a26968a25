//! JSON-RPC over a socket of this machine, as the daemons of Open vSwitch speak it (RFC 7047): a question, an answer, and bounds for
//! both, for the daemon may hang, or be another one than it seems.

use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use serde_json::{Value, json};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;
use tokio::time::Instant;

/// An answer's length in bytes at most.
const LONGEST: usize = 32 << 20;

/// A connection that ends at a time.
#[derive(Debug)]
pub(super) struct JsonRpc {
    stream: UnixStream,
    end: Instant,
    number: u64,
}

impl JsonRpc {
    /// Connects; everything that is asked is answered before `end`, or not at all.
    pub(super) fn open(path: &Path, end: Instant) -> io::Result<Self> {
        // A daemon that accepts nobody any more would make a plain `connect` wait for ever.
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
        connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
        let stream = UnixStream::from(socket);
        stream.set_nonblocking(false)?;
        Ok(Self { stream, end, number: 0 })
    }

    /// Asks, and gives the result.
    pub(super) fn ask(&mut self, method: &str, parameters: &Value) -> io::Result<Value> {
        self.number += 1;
        let question = json!({"id": self.number, "method": method, "params": parameters}).to_string();
        self.stream.set_write_timeout(Some(self.left()?))?;
        self.stream.write_all(question.as_bytes())?;
        loop {
            let mut answer: Value = serde_json::from_slice(&self.read_object()?)?;
            // What it asks itself (`echo`) has another number.
            if answer.get("id").and_then(Value::as_u64) != Some(self.number) || answer.get("method").is_some() {
                continue;
            }
            if let Some(error) = answer.get("error").filter(|error| !error.is_null()) {
                let text: String = error.to_string().chars().take(200).collect();
                return Err(io::Error::other(text));
            }
            return Ok(answer.get_mut("result").map(Value::take).unwrap_or_default());
        }
    }

    fn left(&self) -> io::Result<Duration> {
        let left = self.end.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(left) }
    }

    /// The bytes of the next object: none stands between two of them but white space.
    fn read_object(&mut self) -> io::Result<Vec<u8>> {
        let (mut bytes, mut object) = (Vec::new(), Object::default());
        let mut buffer = vec![0; 1 << 16];
        loop {
            self.stream.set_read_timeout(Some(self.left()?))?;
            let count = match self.stream.read(&mut buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Err(ErrorKind::TimedOut.into()),
                Err(error) => return Err(error),
            };
            let new = buffer.get(..count).unwrap_or_default();
            if let Some(end) = object.end(new) {
                bytes.extend_from_slice(new.get(..end).unwrap_or_default());
                return Ok(bytes);
            }
            bytes.extend_from_slice(new);
            if bytes.len() > LONGEST {
                return Err(io::Error::other(format!("its answer is longer than {} MiB", LONGEST >> 20)));
            }
        }
    }
}

/// Looks for the end of an object in parts of it.
#[derive(Debug, Default)]
struct Object {
    depth: u32,
    in_text: bool,
    escaped: bool,
}

impl Object {
    /// Where the object ends in these bytes, if it does.
    fn end(&mut self, bytes: &[u8]) -> Option<usize> {
        for (at, byte) in bytes.iter().enumerate() {
            match (self.in_text, byte) {
                (true, _) if self.escaped => self.escaped = false,
                (true, b'\\') => self.escaped = true,
                (_, b'"') => self.in_text = !self.in_text,
                (false, b'{') => self.depth += 1,
                (false, b'}') => {
                    self.depth = self.depth.saturating_sub(1);
                    if self.depth == 0 {
                        return Some(at + 1);
                    }
                }
                (_, _) => {}
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    /// A daemon that answers each question with what is given, in small parts.
    fn asked(answers: Vec<Vec<u8>>, patience: Duration) -> io::Result<Value> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sock");
        let listener = UnixListener::bind(&path).unwrap();
        let daemon = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut question = [0; 1024];
            assert!(stream.read(&mut question).unwrap() > 0);
            for answer in answers {
                if stream.write_all(&answer).is_err() {
                    return;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            // It hangs until the other end gives up.
            drop(stream.read(&mut question));
        });
        let mut connection = JsonRpc::open(&path, Instant::now() + patience).unwrap();
        let result = connection.ask("transact", &json!(["x"]));
        drop(connection);
        daemon.join().unwrap();
        result
    }

    #[test]
    fn an_answer_in_parts_is_put_together_and_other_messages_are_passed_over() {
        let parts = [
            r#"{"id":"echo","method":"echo","params":[]}"#,
            r#"{"id":1,"error":null,"#,
            r#""result":{"text":"a \"}\" "#,
            r#"b"}}"#,
        ];
        let answer = asked(parts.map(|part| part.as_bytes().to_vec()).into(), Duration::from_secs(20)).unwrap();
        assert_eq!(answer, json!({"text": "a \"}\" b"}));
    }

    #[test]
    fn a_daemon_that_hangs_is_given_up() {
        let error = asked(Vec::new(), Duration::from_millis(50)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        let error = asked(vec![b"{\"id\":1,".to_vec()], Duration::from_millis(50)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
    }

    #[test]
    fn a_daemon_that_never_ends_is_given_up() {
        let part = vec![b'['; 4 << 20];
        let error = asked(vec![part; 9], Duration::from_mins(1)).unwrap_err();
        assert!(error.to_string().contains("longer than 32 MiB"), "{error}");
    }

    #[test]
    fn errors_and_nonsense_are_errors() {
        let refused = br#"{"id":1,"error":{"error":"unknown database"},"result":null}"#.to_vec();
        assert!(asked(vec![refused], Duration::from_secs(20)).unwrap_err().to_string().contains("unknown database"));
        assert!(asked(vec![b"{\"id\":1,}".to_vec()], Duration::from_secs(20)).is_err());
    }
}
