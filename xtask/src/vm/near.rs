//! What a run opens all the time: copied into the machine's memory at its start, so that it does not wait for 9p.

use crate::setup::{self, LAB_PROGRAMS};
use crate::shell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Programs of a lab's steps besides those that the lab itself needs.
const PROGRAMS: &[&str] = &[
    "arptables",
    "awk",
    "bash",
    "bridge",
    "cat",
    "cut",
    "ebtables-legacy",
    "ebtables-legacy-save",
    "grep",
    "head",
    "ip6tables",
    "ip6tables-legacy",
    "ip6tables-legacy-save",
    "ip6tables-save",
    "iptables-legacy",
    "iptables-legacy-save",
    "iptables-save",
    "modprobe",
    "sed",
    "seq",
    "sh",
    "sleep",
    "ss",
    "tail",
    "tc",
    "timeout",
    "tr",
    "true",
];
/// Directories that those read.
const DIRECTORIES: &[&str] =
    &["/etc/iproute2", "/etc/modprobe.d", "/etc/sysctl.d", "/usr/lib/sysctl.d", "/usr/share/iproute2"];
/// Files that those read.
const FILES: &[&str] = &[
    "/etc/ebtables.conf",
    "/etc/ethertypes",
    "/etc/group",
    "/etc/hosts",
    "/etc/ld.so.cache",
    "/etc/nsswitch.conf",
    "/etc/passwd",
    "/etc/protocols",
    "/etc/services",
    "/etc/sysctl.conf",
];

/// What a kernel would load when a lab first asks for it, and what a look at an empty firewall reads.
pub(super) const PRELUDE: &str = "modprobe -aq 8021q arptable_filter cls_bpf cls_u32 ebtable_filter ip6table_filter \
    ip6table_mangle ip6table_nat ip6table_raw iptable_filter iptable_mangle iptable_nat iptable_raw nf_conntrack_netlink \
    nft_chain_nat nft_compat nft_ct nft_fib_inet nft_limit nft_log nft_masq nft_reject_bridge nft_reject_inet sch_htb \
    sch_ingress sch_netem sch_tbf veth vxlan xt_comment xt_conntrack xt_MASQUERADE xt_physdev xt_tcpudp\n\
    ip netns add near\n\
    for look in 'nft list ruleset' iptables-save ip6tables-save iptables-legacy-save ip6tables-legacy-save \
    'ping -c1 127.0.0.1' 'ss -a'; do ip netns exec near $look; done >/dev/null 2>&1\n\
    ip netns del near\n";

/// The files, one a line: these binaries, the programs of the lab, the libraries of both, and what they read.
pub(super) fn files(binaries: &[PathBuf]) -> String {
    let programs = LAB_PROGRAMS.iter().map(|(program, _)| *program).chain(PROGRAMS.iter().copied());
    let programs: Vec<_> = programs.filter_map(setup::find).chain(binaries.iter().cloned()).collect();
    let mut files: BTreeSet<PathBuf> = FILES.iter().map(PathBuf::from).collect();
    for program in programs {
        let told = shell::output(shell::command("ldd").arg(&program)).unwrap_or_default();
        let libraries: Vec<PathBuf> = libraries(&told).map(PathBuf::from).collect();
        // xtables' modules lie beside the libraries: one of each match and target that a rule names.
        let modules =
            libraries.iter().filter_map(|library| library.parent()).map(|directory| directory.join("xtables"));
        files.extend(modules.flat_map(|directory| entries(&directory)));
        files.extend(libraries);
        files.insert(program);
    }
    files.extend(DIRECTORIES.iter().flat_map(|directory| entries(Path::new(directory))));
    // Behind a symbolic link lies the file that is read; each link on the way is read as well.
    let mut near: BTreeSet<PathBuf> = files.iter().filter(|file| file.is_file()).flat_map(|file| links(file)).collect();
    near.extend(files.iter().filter_map(|file| file.canonicalize().ok()).filter(|file| file.is_file()));
    near.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join("\n") + "\n"
}

/// The symbolic links on the way to a file.
fn links(file: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    // A link may lead to another; the kernel follows forty at most.
    let mut next = Some(file.to_owned());
    while let Some(path) = next.take().filter(|_| found.len() < 40) {
        let Some(link) = path.ancestors().filter(|part| part.is_symlink()).last() else { break };
        let (Ok(target), Ok(rest)) = (link.read_link(), path.strip_prefix(link)) else { break };
        let target = link.parent().unwrap_or(link).join(target);
        // Joined with nothing, a path to a file would end in a slash.
        next = Some(if rest.as_os_str().is_empty() { target } else { target.join(rest) });
        found.push(link.to_owned());
    }
    found
}

/// The paths in what `ldd` prints.
fn libraries(told: &str) -> impl Iterator<Item = &str> {
    told.split_whitespace().filter(|word| word.starts_with('/'))
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_binary_and_its_libraries_are_near() {
        let told = "\tlinux-vdso.so.1 (0x7ffc)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x7f1c)\n\t/lib64/ld-linux-x86-64.so.2 (0x7f1d)\n";
        assert_eq!(
            libraries(told).collect::<Vec<_>>(),
            ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"]
        );
        let this = std::env::current_exe().unwrap().canonicalize().unwrap();
        let files = files(std::slice::from_ref(&this));
        assert!(files.lines().any(|file| Path::new(file) == this));
        assert!(files.lines().any(|file| file.contains("/libc.so")), "{files}");
    }

    #[test]
    fn each_symbolic_link_on_the_way_to_a_file_is_near() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().canonicalize().unwrap().join(name);
        std::fs::create_dir_all(path("usr/lib")).unwrap();
        std::fs::write(path("usr/lib/libm.so.6.0"), "").unwrap();
        std::os::unix::fs::symlink("usr/lib", path("lib")).unwrap();
        std::os::unix::fs::symlink("libm.so.6.0", path("usr/lib/libm.so.6")).unwrap();
        std::os::unix::fs::symlink("itself", path("itself")).unwrap();
        assert_eq!(links(&path("lib/libm.so.6")), [path("lib"), path("usr/lib/libm.so.6")]);
        assert_eq!(links(&path("usr/lib/libm.so.6.0")), [] as [PathBuf; 0]);
        assert_eq!(links(&path("itself")).len(), 40);
    }
}
