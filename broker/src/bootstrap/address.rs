//! Which host name and which address does this broker give to its peers?

use super::BootError;
use crate::attrs::Attrs;
use nix::ifaddrs::getifaddrs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Returns attribute `hostname`, else the system's.
pub(super) fn hostname(attrs: &Attrs) -> String {
    if let Some(name) = attrs.get("hostname") {
        return name.to_owned();
    }
    nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok())
        .unwrap_or_else(|| "localhost".to_owned())
}

/// Returns the address to listen at for peers on other hosts, by `tbon.interface-hint` (or the FLUX_IPADDR_*
/// variables): `hostname`, an interface name, a CIDR network, or `default-route`, which is the default: the address of
/// the default route, else that of the host name, else loopback.
///
/// # Errors
/// No address of this host meets a hint other than `default-route`.
pub(super) fn listen_address(attrs: &Attrs) -> Result<IpAddr, BootError> {
    let v6 = std::env::var_os("FLUX_IPADDR_V6").is_some();
    let (hint, from) = if std::env::var_os("FLUX_IPADDR_HOSTNAME").is_some() {
        (Some("hostname".to_owned()), "FLUX_IPADDR_HOSTNAME")
    } else if let Ok(interface) = std::env::var("FLUX_IPADDR_INTERFACE") {
        (Some(interface), "FLUX_IPADDR_INTERFACE")
    } else {
        let hint = attrs.get("tbon.interface-hint").map(str::to_owned);
        (hint, "tbon.interface-hint")
    };
    let Some(hint) = hint.filter(|hint| hint != "default-route") else {
        let found = address_for("default-route", attrs, v6).or_else(|| address_for("hostname", attrs, v6));
        let loopback = if v6 {
            IpAddr::V6(Ipv6Addr::LOCALHOST)
        } else {
            IpAddr::V4(Ipv4Addr::LOCALHOST)
        };
        return Ok(found.unwrap_or(loopback));
    };
    address_for(&hint, attrs, v6).ok_or_else(|| {
        let family = if v6 { "IPv6" } else { "IPv4" };
        BootError::Address(format!(
            "{from}={hint}: this host has no {family} address for it; use default-route, hostname, the name of an \
             interface, or a network like 10.0.0.0/8"
        ))
    })
}

fn address_for(hint: &str, attrs: &Attrs, v6: bool) -> Option<IpAddr> {
    match hint {
        "default-route" => interface_address(&default_route_interface()?, v6),
        "hostname" => resolve(&hostname(attrs), v6),
        hint => match hint.split_once('/') {
            Some((net, bits)) => in_network(net.parse().ok()?, bits.parse().ok()?),
            None => interface_address(hint, v6),
        },
    }
}

fn resolve(name: &str, v6: bool) -> Option<IpAddr> {
    use std::net::ToSocketAddrs;
    (name, 0)
        .to_socket_addrs()
        .ok()?
        .map(|addr| addr.ip())
        .find(|ip| ip.is_ipv6() == v6)
}

/// Returns the interface of the default IPv4 route from the kernel's table.
fn default_route_interface() -> Option<String> {
    let table = std::fs::read_to_string("/proc/net/route").ok()?;
    table.lines().skip(1).find_map(|line| {
        let mut fields = line.split_whitespace();
        let name = fields.next()?;
        (fields.next()? == "00000000").then(|| name.to_owned())
    })
}

fn addresses() -> Vec<(String, IpAddr)> {
    let Ok(all) = getifaddrs() else { return Vec::new() };
    all.filter_map(|one| {
        let address = one.address?;
        let ip = match (address.as_sockaddr_in(), address.as_sockaddr_in6()) {
            (Some(v4), _) => IpAddr::V4(v4.ip()),
            (None, Some(v6)) => IpAddr::V6(v6.ip()),
            (None, None) => return None,
        };
        Some((one.interface_name, ip))
    })
    .collect()
}

fn interface_address(name: &str, v6: bool) -> Option<IpAddr> {
    addresses()
        .into_iter()
        .find(|(interface, ip)| interface == name && ip.is_ipv6() == v6)
        .map(|(_, ip)| ip)
}

/// Returns the IPv4 (else IPv6) address of an interface named in a configured URI.
pub(super) fn interface_ip(name: &str) -> Option<IpAddr> {
    interface_address(name, false).or_else(|| interface_address(name, true))
}

fn in_network(net: IpAddr, bits: u32) -> Option<IpAddr> {
    let prefix = |ip: IpAddr| -> Option<u128> {
        let (value, width) = match ip {
            IpAddr::V4(v4) => (u128::from(v4.to_bits()), 32u32),
            IpAddr::V6(v6) => (v6.to_bits(), 128),
        };
        Some(value.checked_shr(width.checked_sub(bits)?).unwrap_or(0))
    };
    let want = prefix(net)?;
    addresses()
        .into_iter()
        .map(|(_, ip)| ip)
        .find(|ip| ip.is_ipv4() == net.is_ipv4() && prefix(*ip) == Some(want))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_loopback_by_network_and_by_name() {
        assert_eq!(
            in_network("127.0.0.0".parse().unwrap(), 8),
            Some("127.0.0.1".parse().unwrap())
        );
        assert_eq!(interface_address("lo", false), Some("127.0.0.1".parse().unwrap()));
        assert_eq!(in_network("203.0.113.0".parse().unwrap(), 24), None);
        assert_eq!(in_network("127.0.0.0".parse().unwrap(), 99), None);
    }
}
