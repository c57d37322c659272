//! A proxy on the way out: HTTP CONNECT, as `HTTPS_PROXY` and `NO_PROXY` say. TLS runs inside the tunnel, so the proxy
//! sees a host name and nothing else.

use std::{fmt, io, net::IpAddr};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Bytes of a proxy's answer: a status line and a few headers.
const ANSWER_BYTES: usize = 8 << 10;

/// What the environment says about proxies.
#[derive(Clone, Debug, Default)]
pub struct Proxies {
    proxy: Option<Proxy>,
    except: Vec<String>,
}

#[derive(Clone)]
pub struct Proxy {
    /// `host:port`
    pub address: String,
    /// The value of `Proxy-Authorization`.
    authorization: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    #[error("HTTPS_PROXY is not of the form http://[user:password@]host:port")]
    Invalid,
    #[error("the proxy closed the connection or did not speak HTTP")]
    NoAnswer,
    #[error("the proxy answered: {0}")]
    Refused(String),
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Proxies {
    /// `variable` is the environment; lower case wins, as with curl.
    pub fn from_environment(variable: impl Fn(&str) -> Option<String>) -> Result<Self, ProxyError> {
        let either = |lower: &str| {
            variable(lower)
                .or_else(|| variable(&lower.to_ascii_uppercase()))
                .filter(|value| !value.is_empty())
        };
        let proxy = either("https_proxy").map(|url| Proxy::parse(&url)).transpose()?;
        let except = either("no_proxy").unwrap_or_default();
        let except = except.split(',').map(|entry| entry.trim().to_ascii_lowercase());
        Ok(Self { proxy, except: except.filter(|entry| !entry.is_empty()).collect() })
    }

    /// The proxy on the way to `address` (`host:port`), if any. Never for this machine itself.
    pub fn towards(&self, address: &str) -> Option<&Proxy> {
        let (host, _) = address.rsplit_once(':')?;
        let host = host.trim_matches(['[', ']']).to_ascii_lowercase();
        let own = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        if own || self.except.iter().any(|entry| excepts(entry, &host, address)) {
            return None;
        }
        self.proxy.as_ref()
    }
}

/// `*`, `host`, `host:port`, `.domain` or `domain`.
fn excepts(entry: &str, host: &str, address: &str) -> bool {
    let domain = entry.trim_start_matches("*.").trim_start_matches('.');
    entry == "*"
        || entry == address
        || host == domain
        || host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'))
}

impl Proxy {
    fn parse(url: &str) -> Result<Self, ProxyError> {
        let rest = match url.split_once("://") {
            Some(("http", rest)) => rest,
            Some(_) => return Err(ProxyError::Invalid),
            None => url,
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (credentials, host) = match rest.rsplit_once('@') {
            Some((credentials, host)) => (Some(credentials), host),
            None => (None, rest),
        };
        if !consign_common::trust::is_address(host) {
            return Err(ProxyError::Invalid);
        }
        let authorization = match credentials.map(percent_decode) {
            Some(Some(decoded)) => Some(format!("Basic {}", STANDARD.encode(decoded))),
            Some(None) => return Err(ProxyError::Invalid),
            None => None,
        };
        Ok(Self { address: host.into(), authorization })
    }

    /// Asks for a tunnel to `target` over `stream`, which is connected to the proxy.
    pub async fn tunnel(&self, stream: &mut TcpStream, target: &str) -> Result<(), ProxyError> {
        let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n");
        if let Some(authorization) = &self.authorization {
            request.push_str("Proxy-Authorization: ");
            request.push_str(authorization);
            request.push_str("\r\n");
        }
        request.push_str("\r\n");
        stream.write_all(request.as_bytes()).await?;
        let answer = read_head(stream).await?;
        let status = answer.lines().next().unwrap_or_default();
        let mut words = status.split(' ');
        match (words.next(), words.next()) {
            (Some("HTTP/1.1" | "HTTP/1.0"), Some("200")) => Ok(()),
            (Some("HTTP/1.1" | "HTTP/1.0"), Some(_)) => {
                Err(ProxyError::Refused(status.chars().filter(|c| !c.is_control()).take(200).collect()))
            }
            (Some(_) | None, _) => Err(ProxyError::NoAnswer),
        }
    }
}

/// Up to and with the empty line, byte by byte: what follows belongs to TLS.
async fn read_head(stream: &mut TcpStream) -> Result<String, ProxyError> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() == ANSWER_BYTES {
            return Err(ProxyError::NoAnswer);
        }
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(ProxyError::NoAnswer),
            Err(error) => return Err(error.into()),
        }
    }
    String::from_utf8(head).map_err(|_| ProxyError::NoAnswer)
}

fn percent_decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let pair = [bytes.next()?, bytes.next()?];
            decoded.push(u8::from_str_radix(std::str::from_utf8(&pair).ok()?, 16).ok()?);
        } else {
            decoded.push(byte);
        }
    }
    Some(decoded)
}

/// Without the password: a proxy ends up in traces.
impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy").field("address", &self.address).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    fn proxies(proxy: &'static str, except: &'static str) -> Result<Proxies, ProxyError> {
        Proxies::from_environment(|name| match name {
            "https_proxy" => Some(proxy.into()),
            "NO_PROXY" => Some(except.into()),
            _ => None,
        })
    }

    #[test]
    fn exceptions_are_hosts_and_domains() {
        let proxies = proxies("http://proxy:3128", "deploy.internal, .corp.example,10.0.0.1:7443").unwrap();
        for direct in [
            "localhost:1",
            "127.0.0.1:1",
            "[::1]:1",
            "deploy.internal:7443",
            "a.corp.example:1",
            "10.0.0.1:7443",
        ] {
            assert!(proxies.towards(direct).is_none(), "{direct}");
        }
        for through in ["deploy.example:7443", "xdeploy.internal:7443", "notcorp.example:1", "10.0.0.1:7444"]
        {
            assert!(proxies.towards(through).is_some(), "{through}");
        }
        assert!(Proxies::default().towards("deploy.example:7443").is_none());
    }

    #[test]
    fn what_is_no_http_proxy_is_refused() {
        for bad in
            ["https://proxy:3128", "socks5://proxy:1", "http://proxy", "http://a%zz@proxy:1", "http://:1"]
        {
            assert!(matches!(proxies(bad, ""), Err(ProxyError::Invalid)), "{bad}");
        }
    }

    async fn answered(answer: &'static str) -> (Result<(), ProxyError>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let head = read_head(&mut stream).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
            head
        });
        let proxy = Proxy::parse(&format!("http://me:p%40ss@{address}")).unwrap();
        let mut stream = TcpStream::connect(address).await.unwrap();
        let result = proxy.tunnel(&mut stream, "deploy.example:7443").await;
        (result, server.await.unwrap())
    }

    #[tokio::test]
    async fn asks_for_the_target_with_its_credentials() {
        let (result, head) = answered("HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\n").await;
        result.unwrap();
        assert!(head.starts_with("CONNECT deploy.example:7443 HTTP/1.1\r\n"), "{head}");
        assert!(head.contains(&format!("Proxy-Authorization: Basic {}\r\n", STANDARD.encode("me:p@ss"))));
    }

    #[tokio::test]
    async fn a_refusal_is_told_in_the_proxys_words() {
        let (result, _) = answered("HTTP/1.1 407 Proxy \u{1b}Authentication Required\r\n\r\n").await;
        assert_eq!(
            result.unwrap_err().to_string(),
            "the proxy answered: HTTP/1.1 407 Proxy Authentication Required"
        );
        assert!(matches!(answered("SSH-2.0-x\r\n\r\n").await.0, Err(ProxyError::NoAnswer)));
        assert!(matches!(answered("").await.0, Err(ProxyError::NoAnswer)));
    }
}
