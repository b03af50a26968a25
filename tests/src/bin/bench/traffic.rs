//! Traffic as guests have it, of kinds that compress well and not at all.

use anyhow::{Context as _, Result, bail};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

/// A kind of traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// One request: somebody answers.
    One,
    /// Pages of text over TCP.
    Pages,
    /// Encrypted downloads over TCP: random bytes.
    Encrypted,
    /// Questions and answers of some 40 bytes over UDP, each from a port of its own.
    Names,
    /// 50 kbit/s of random bytes over UDP, 160 at a time, as calls are.
    Calls,
    /// 1200 random bytes at a time over UDP, as QUIC is.
    Datagrams,
}

const PAGE: usize = 20_000;
const DOWNLOAD: usize = 60_000;
const PATIENCE: Duration = Duration::from_secs(10);

impl Kind {
    /// Those that are measured.
    pub(crate) const MEASURED: [Self; 5] = [Self::Pages, Self::Encrypted, Self::Names, Self::Calls, Self::Datagrams];

    /// As it is given on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::One => "one",
            Self::Pages => "pages",
            Self::Encrypted => "encrypted",
            Self::Names => "names",
            Self::Calls => "calls",
            Self::Datagrams => "datagrams",
        }
    }

    /// For people.
    pub(crate) fn description(self) -> &'static str {
        match self {
            Self::One => "one request",
            Self::Pages => "TCP, pages of text",
            Self::Encrypted => "TCP, encrypted",
            Self::Names => "UDP, name queries",
            Self::Calls => "UDP, 160 random bytes",
            Self::Datagrams => "UDP, 1200 random bytes",
        }
    }
}

/// Bytes that no packer makes smaller (xorshift64).
struct Random(u64);

impl Random {
    fn bytes(&mut self, count: usize) -> Vec<u8> {
        let next = || {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 >> 32) as u8
        };
        std::iter::repeat_with(next).take(count).collect()
    }
}

/// Answers at an address, until killed.
pub(crate) fn answer(at: SocketAddr) -> Result<()> {
    let udp = UdpSocket::bind(at).with_context(|| format!("UDP at {at}"))?;
    thread::spawn(move || -> Result<()> {
        let mut buffer = [0; 2048];
        loop {
            let (length, from) = udp.recv_from(&mut buffer)?;
            let asked = buffer.get(..length).unwrap_or_default();
            if asked.starts_with(b"N") {
                udp.send_to(&[asked, b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\x0a\0\0\x01"].concat(), from)?;
            }
        }
    });
    for stream in TcpListener::bind(at).with_context(|| format!("TCP at {at}"))?.incoming() {
        let stream = stream?;
        thread::spawn(move || serve(&stream));
    }
    Ok(())
}

fn serve(mut stream: &TcpStream) -> Result<()> {
    let mut random = Random(u64::from(stream.peer_addr()?.port()) + 1);
    for line in BufReader::new(stream).split(b'\n') {
        let line = line?;
        if line.starts_with(b"GET") {
            let text = "<p>The quick brown fox jumps over the lazy dog.</p>\n".repeat(PAGE / 52 + 1);
            stream.write_all(text.get(..PAGE).unwrap_or_default().as_bytes())?;
        } else {
            stream.write_all(&random.bytes(DOWNLOAD))?;
        }
    }
    Ok(())
}

/// Makes traffic of a kind with whoever answers at an address.
pub(crate) fn talk(to: SocketAddr, kind: Kind) -> Result<()> {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    match kind {
        Kind::One => download(to, 1, 1, PAGE, || b"GET / HTTP/1.1\n".to_vec()),
        Kind::Pages => {
            let mut number = 0;
            download(to, 20, 10, PAGE, || {
                number += 1;
                format!("GET /page/{number} HTTP/1.1; Host: shop.example; User-Agent: bench\n").into_bytes()
            })
        }
        Kind::Encrypted => download(to, 20, 10, DOWNLOAD, || {
            let mut request = random.bytes(300);
            request.iter_mut().filter(|byte| matches!(byte, b'\n' | b'G')).for_each(|byte| *byte = 0);
            request.push(b'\n');
            request
        }),
        Kind::Names => {
            for number in 0..3000 {
                let socket = UdpSocket::bind("0.0.0.0:0")?;
                socket.set_read_timeout(Some(PATIENCE))?;
                let name = number % 10;
                let question =
                    format!("N\u{1}\0\0\u{1}\0\0\0\0\0\0\u{5}host{name}\u{7}example\u{3}com\0\0\u{1}\0\u{1}");
                socket.send_to(&[question.as_bytes(), &random.bytes(2)].concat(), to)?;
                socket.recv(&mut [0; 512])?;
            }
            Ok(())
        }
        Kind::Calls | Kind::Datagrams => {
            let (count, size) = if kind == Kind::Calls { (3000, 160) } else { (6000, 1200) };
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            for _ in 0..count {
                let mut bytes = random.bytes(size);
                bytes[0] = 0x80;
                socket.send_to(&bytes, to)?;
                thread::sleep(Duration::from_micros(500));
            }
            Ok(())
        }
    }
}

fn download(
    to: SocketAddr,
    connections: usize,
    requests: usize,
    size: usize,
    mut request: impl FnMut() -> Vec<u8>,
) -> Result<()> {
    for _ in 0..connections {
        let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        for _ in 0..requests {
            stream.write_all(&request())?;
            let mut left = size;
            while left > 0 {
                let mut buffer = [0; 16 << 10];
                match stream.read(&mut buffer)? {
                    0 => bail!("the answer was cut short"),
                    length => left = left.saturating_sub(length),
                }
            }
        }
    }
    Ok(())
}
