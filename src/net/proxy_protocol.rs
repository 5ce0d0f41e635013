//! The PROXY header (versions 1 and 2) with which a load balancer's connection begins: it names the
//! caller's address. Only read where the peer is listed; never guessed from the bytes.

use proxy_header::{Error, ParseConfig, ProxyHeader};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// Bytes that a header may have: 107 in version 1, and version 2 with the extensions in use.
const MOST: usize = 4_096;
/// Before the rest of a header is looked for: a header that came in pieces is rare.
const PAUSE: Duration = Duration::from_millis(5);

const CONFIG: ParseConfig = ParseConfig { include_tlvs: false, allow_v1: true, allow_v2: true };

/// Takes the header off the stream. None for the proxy's own connections, such as health checks.
/// The caller's patience bounds the wait.
pub async fn caller(stream: &mut TcpStream) -> io::Result<Option<SocketAddr>> {
    let mut bytes = [0; MOST];
    loop {
        let length = stream.peek(&mut bytes).await?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match ProxyHeader::parse(&bytes[..length], CONFIG) {
            Ok((header, taken)) => {
                let source = header.proxied_address().map(|address| address.source);
                stream.read_exact(&mut bytes[..taken]).await?;
                return Ok(source);
            }
            Err(Error::BufferTooShort) if length < MOST => tokio::time::sleep(PAUSE).await,
            Err(_) => {
                return Err(io::Error::other("the connection of a trusted proxy does not begin with a PROXY header"));
            }
        }
    }
}
