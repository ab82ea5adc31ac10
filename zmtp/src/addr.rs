//! Where does a peer listen? `tcp://host:port`, IPv6 in brackets.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// A TCP endpoint as ZeroMQ writes it: `tcp://host:port`.
///
/// The host is an address, a name, `*` (any IPv4 address; only to bind) or a bracketed IPv6 address; the port is
/// 0 to 65535 or `*` (any free port; only to bind, same as 0).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    host: String,
    port: u16,
}

impl Endpoint {
    /// Returns the host without brackets. `*` is given back as `0.0.0.0`.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns the port; 0 stands for any free port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the socket address when the host is a literal address, without a name look-up.
    #[must_use]
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        self.host
            .parse::<IpAddr>()
            .ok()
            .map(|ip| SocketAddr::new(ip, self.port))
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(addr: SocketAddr) -> Self {
        Self {
            host: addr.ip().to_string(),
            port: addr.port(),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "tcp://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "tcp://{}:{}", self.host, self.port)
        }
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    /// Reads `tcp://host:port`.
    ///
    /// # Errors
    /// [`EndpointError`] names the text and what is wrong with it.
    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let fail = |problem| EndpointError {
            endpoint: text.to_owned(),
            problem,
        };
        let rest = text
            .strip_prefix("tcp://")
            .ok_or_else(|| fail("does not start with tcp://"))?;
        let (host, port) = rest.rsplit_once(':').ok_or_else(|| fail("has no port"))?;
        let host = match host.strip_prefix('[').map(|inner| inner.strip_suffix(']')) {
            Some(inner) => inner
                .filter(|inner| inner.contains(':'))
                .ok_or_else(|| fail("has a malformed bracketed address"))?,
            None if host == "*" => "0.0.0.0",
            None if host.contains(':') => return Err(fail("has an IPv6 address without brackets")),
            None => host,
        };
        if host.is_empty() || host.contains(|c: char| c.is_whitespace() || c.is_control() || c == '/') {
            return Err(fail("has no usable host"));
        }
        let port = match port {
            "*" => 0,
            digits if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => {
                digits.parse().map_err(|_| fail("has a port above 65535"))?
            }
            _ => return Err(fail("has a port that is not a number")),
        };
        Ok(Self {
            host: host.to_owned(),
            port,
        })
    }
}

/// An endpoint that cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("endpoint '{endpoint}' {problem}")]
pub struct EndpointError {
    endpoint: String,
    problem: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_names_and_wildcards_are_read() {
        for (text, host, port, shown) in [
            ("tcp://127.0.0.1:8050", "127.0.0.1", 8050, "tcp://127.0.0.1:8050"),
            ("tcp://[::1]:0", "::1", 0, "tcp://[::1]:0"),
            (
                "tcp://node1.example:65535",
                "node1.example",
                65535,
                "tcp://node1.example:65535",
            ),
            ("tcp://*:*", "0.0.0.0", 0, "tcp://0.0.0.0:0"),
        ] {
            let endpoint: Endpoint = text.parse().unwrap();
            assert_eq!((endpoint.host(), endpoint.port()), (host, port), "{text}");
            assert_eq!(endpoint.to_string(), shown);
            assert_eq!(shown.parse::<Endpoint>().unwrap(), endpoint);
        }
        assert_eq!(
            "tcp://[::1]:5".parse::<Endpoint>().unwrap().socket_addr(),
            Some("[::1]:5".parse().unwrap())
        );
        assert_eq!("tcp://host:5".parse::<Endpoint>().unwrap().socket_addr(), None);
    }

    #[test]
    fn anything_else_is_refused_with_the_reason() {
        for (text, problem) in [
            ("ipc:///tmp/x", "does not start"),
            ("tcp://host", "no port"),
            ("tcp://:80", "no usable host"),
            ("tcp://a b:80", "no usable host"),
            ("tcp://host:65536", "above 65535"),
            ("tcp://host:+1", "not a number"),
            ("tcp://host:", "not a number"),
            ("tcp://::1:80", "without brackets"),
            ("tcp://[::1:80", "malformed"),
            ("tcp://[]:80", "malformed"),
        ] {
            let err = text.parse::<Endpoint>().unwrap_err().to_string();
            assert!(err.contains(problem) && err.contains(text), "{err}");
        }
    }
}
