//! System calls that are given up after attaching, by a seccomp filter.
//!
//! It is a list of calls that are refused, not of those that are allowed: what the C library, tokio and the kernel interfaces
//! behind netlink and BPF call differs by version and processor, and an allowlist that is one call short ends a trace that
//! runs for days. Refused is what would lead out of this process: other programs, other processes' memory, namespaces,
//! mounts, modules, identities, and subsystems that kvmtrace has no use for. `bpf` stays: guests that start later are
//! attached to. Each refused call returns EPERM, as it does to a process without rights.

use nix::errno::Errno;
use nix::libc::{self, c_long, sock_filter, sock_fprog};

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;
/// Numbers from here on are of x32, a second set of calls on x86-64; others end far below.
const OTHER_CALLS: u32 = 0x4000_0000;
/// Namespaces that `clone` can make (linux/sched.h).
const NEW_NAMESPACES: i32 = libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET;

/// What is refused.
const REFUSED: &[c_long] = &[
    // Other programs.
    libc::SYS_execve,
    libc::SYS_execveat,
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_kcmp,
    // Namespaces and mounts.
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_mount_setattr,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_open_by_handle_at,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_quotactl,
    // The kernel itself.
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_acct,
    libc::SYS_syslog,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_adjtimex,
    libc::SYS_clock_adjtime,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    // Identities and rights.
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setfsuid,
    libc::SYS_setfsgid,
    libc::SYS_setgroups,
    libc::SYS_capset,
    libc::SYS_personality,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_mknodat,
    // No use for them.
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_kexec_file_load,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chown,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_lchown,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_mknod,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
];

/// Refuses them to this process from now on, for good. `no_new_privs` must be set.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(super) fn refuse_system_calls() -> Result<(), Errno> {
    let mut program = program();
    let length = u16::try_from(program.len()).map_err(|_too_long| Errno::E2BIG)?;
    let program = sock_fprog { len: length, filter: program.as_mut_ptr() };
    // SAFETY: the kernel copies the program, which lives until the call has returned; all threads get the filter.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_TSYNC,
            &raw const program,
        )
    };
    match result {
        0 => Ok(()),
        // The thread that could not follow.
        1.. => Err(Errno::EBUSY),
        _ => Err(Errno::last()),
    }
}

/// For other processors nobody has tried it.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(super) fn refuse_system_calls() -> Result<(), Errno> {
    Err(Errno::ENOSYS)
}

/// The filter: classic BPF over `struct seccomp_data` (call number, architecture, address, arguments).
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
fn program() -> Vec<sock_filter> {
    const NUMBER: u32 = 0;
    const ARCH: u32 = 4;
    const FIRST_ARGUMENT: u32 = 16;
    let load = |at| step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, at);
    let answer = |what| step(libc::BPF_RET | libc::BPF_K, 0, 0, what);
    let error = |errno: i32| answer(libc::SECCOMP_RET_ERRNO | errno.cast_unsigned());
    let unless = |test, with, skip| step(libc::BPF_JMP | test | libc::BPF_K, 0, skip, with);
    let number = |call: c_long| u32::try_from(call).unwrap_or(u32::MAX);
    let mut program = vec![
        load(ARCH),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, 0, ARCHITECTURE),
        answer(libc::SECCOMP_RET_KILL_PROCESS),
        load(NUMBER),
        unless(libc::BPF_JGE, OTHER_CALLS, 1),
        error(libc::EPERM),
        // Its flags lie in memory that a filter can't read. The C library then takes clone.
        unless(libc::BPF_JEQ, number(libc::SYS_clone3), 1),
        error(libc::ENOSYS),
    ];
    for call in REFUSED {
        program.extend([unless(libc::BPF_JEQ, number(*call), 1), error(libc::EPERM)]);
    }
    program.extend([
        unless(libc::BPF_JEQ, number(libc::SYS_clone), 3),
        load(FIRST_ARGUMENT),
        unless(libc::BPF_JSET, NEW_NAMESPACES.cast_unsigned(), 1),
        error(libc::EPERM),
        answer(libc::SECCOMP_RET_ALLOW),
    ]);
    program
}

fn step(code: u32, jump_true: u8, jump_false: u8, k: u32) -> sock_filter {
    sock_filter { code: code as u16, jt: jump_true, jf: jump_false, k }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::prctl;
    use nix::sys::wait::{WaitStatus, waitpid};
    use nix::unistd::{ForkResult, fork};

    /// Runs a test in a process of its own that is confined; its exit status.
    fn confined(test: fn() -> i32) -> i32 {
        // SAFETY: the child makes system calls only, and ends without running destructors.
        match unsafe { fork() }.unwrap() {
            ForkResult::Child => {
                let refused = prctl::set_no_new_privs().and_then(|()| refuse_system_calls());
                let status = if refused.is_ok() { test() } else { 100 };
                // SAFETY: ends the process.
                unsafe { libc::_exit(status) }
            }
            ForkResult::Parent { child } => {
                let ended = waitpid(child, None).unwrap();
                let WaitStatus::Exited(_, status) = ended else { panic!("{ended:?}") };
                status
            }
        }
    }

    #[test]
    fn what_leads_out_is_refused() {
        let status = confined(|| {
            let calls: [(c_long, [c_long; 3]); 6] = [
                (libc::SYS_execve, [0, 0, 0]),
                (libc::SYS_ptrace, [0, 0, 0]),
                (libc::SYS_unshare, [libc::CLONE_NEWNET as c_long, 0, 0]),
                (libc::SYS_setns, [0, 0, 0]),
                (libc::SYS_finit_module, [0, 0, 0]),
                (libc::SYS_clone, [(libc::CLONE_NEWUSER | libc::SIGCHLD) as c_long, 0, 0]),
            ];
            for (at, (call, [a, b, c])) in (1..).zip(calls) {
                // SAFETY: refused before any argument is looked at.
                let result = unsafe { libc::syscall(call, a, b, c) };
                if result != -1 || Errno::last() != Errno::EPERM {
                    return at;
                }
            }
            // SAFETY: its arguments are never looked at.
            let result = unsafe { libc::syscall(libc::SYS_clone3, 0, 0) };
            if result == -1 && Errno::last() == Errno::ENOSYS { 0 } else { 50 }
        });
        assert_eq!(status, 0);
    }

    #[test]
    fn what_a_trace_goes_on_doing_is_not() {
        let status = confined(|| {
            // SAFETY: plain calls with arguments of their kind; the child has no threads.
            unsafe {
                let socket = libc::socket(libc::AF_NETLINK, libc::SOCK_RAW, 0);
                let file = libc::open(c"/proc/self/status".as_ptr(), libc::O_RDONLY);
                let child = libc::fork();
                if child == 0 {
                    libc::_exit(7);
                }
                let mut status = 0;
                libc::waitpid(child, &raw mut status, 0);
                i32::from(socket < 0) + i32::from(file < 0) + i32::from(libc::WEXITSTATUS(status) != 7)
            }
        });
        assert_eq!(status, 0);
    }
}
