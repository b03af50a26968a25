//! Cures by sysctl.

use crate::diagnose::report::{Fix, Setting};
use crate::diagnose::shell::quote;
use crate::event::HostState;
use crate::forward::effect::Effect;

/// Sets a sysctl; the undo sets what it is now.
pub fn set(host: &HostState, name: &str, value: &str, why: impl Into<String>) -> Fix {
    let path = path(name);
    let before = host.sysctl(name).unwrap_or(if value == "0" { "1" } else { "0" });
    let assign = |value: &str| format!("sysctl -w {}", quote(&format!("{path}={value}")));
    Fix::run(assign(value), assign(before), why)
        .persist(format!("Write \"{path} = {value}\" to /etc/sysctl.d/90-kvmtrace.conf."))
        .setting(Setting::Sysctl { name: name.to_owned(), value: value.to_owned() })
        .effect(Effect::Sysctl(name.to_owned(), value.to_owned()))
}

/// A device's name may hold dots, which sysctl takes for separators: then slashes separate.
pub(in crate::diagnose) fn path(name: &str) -> String {
    let parts: Vec<&str> = name.split('.').collect();
    let per_device = ["net.ipv4.conf.", "net.ipv6.conf.", "net.ipv4.neigh.", "net.ipv6.neigh."];
    let Some(prefix) = per_device.iter().find(|prefix| name.starts_with(**prefix)) else { return name.to_owned() };
    let plain = parts.len() == 5 && !name.contains('/');
    if plain {
        return name.to_owned();
    }
    let rest = name.get(prefix.len()..).unwrap_or_default();
    match rest.rsplit_once('.') {
        Some((device, key)) => format!("{}{device}/{key}", prefix.replace('.', "/")),
        None => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_with_a_dot_gets_slashes() {
        assert_eq!(path("net.ipv4.conf.eth0.rp_filter"), "net.ipv4.conf.eth0.rp_filter");
        assert_eq!(path("net.ipv4.conf.eth0.100.rp_filter"), "net/ipv4/conf/eth0.100/rp_filter");
        assert_eq!(path("net.ipv4.ip_forward"), "net.ipv4.ip_forward");
    }

    #[test]
    fn the_undo_restores_what_was() {
        let mut host = HostState::default();
        host.sysctls.insert("net.ipv4.conf.all.rp_filter".to_owned(), "1".to_owned());
        let fix = set(&host, "net.ipv4.conf.all.rp_filter", "2", "x");
        assert_eq!(fix.command.unwrap(), "sysctl -w net.ipv4.conf.all.rp_filter=2");
        assert_eq!(fix.undo.unwrap(), "sysctl -w net.ipv4.conf.all.rp_filter=1");
    }
}
