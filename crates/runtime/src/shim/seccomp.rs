//! The system call filter of the profile `RuntimeDefault`.
//!
//! The kernel runs the program for every call. It denies what reaches beyond the container,
//! unless the container holds the capability that is made for it, and calls newer than the ones
//! known here, which answer `ENOSYS` so that programs fall back to older ones.

use std::io;

use libc::{BPF_ABS, BPF_JEQ, BPF_JGE, BPF_JMP, BPF_JSET, BPF_K, BPF_LD, BPF_RET, BPF_W};

/// `AUDIT_ARCH_X86_64` and `AUDIT_ARCH_AARCH64` from `linux/audit.h`.
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xC000_003E;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xC000_00B7;

/// Offsets in `struct seccomp_data`.
const OFFSET_NUMBER: u32 = 0;
const OFFSET_ARCHITECTURE: u32 = 4;
const OFFSET_FIRST_ARGUMENT: u32 = 16;

/// New namespaces by `clone`: all flags of `linux/sched.h` that make one, but for time.
const CLONE_NAMESPACES: u32 = 0x7E02_0000;
/// The first number after the calls of Linux 6.18; every architecture numbers the newer ones alike.
const UNKNOWN: u32 = 470;

/// Capabilities by number, from `linux/capability.h`.
const DAC_READ_SEARCH: u8 = 2;
const SYS_MODULE: u8 = 16;
const SYS_PTRACE: u8 = 19;
const SYS_PACCT: u8 = 20;
const SYS_ADMIN: u8 = 21;
const SYS_BOOT: u8 = 22;
const SYS_NICE: u8 = 23;
const SYS_TIME: u8 = 25;
const SYS_TTY_CONFIG: u8 = 26;
const SYSLOG: u8 = 34;
/// No capability allows it.
const NEVER: u8 = 63;

/// What is denied, and the capability with which it is not.
const DENIED: &[(libc::c_long, u8)] = &[
    (libc::SYS_acct, SYS_PACCT),
    (libc::SYS_add_key, NEVER),
    (libc::SYS_bpf, SYS_ADMIN),
    (libc::SYS_clock_settime, SYS_TIME),
    (libc::SYS_delete_module, SYS_MODULE),
    (libc::SYS_fanotify_init, SYS_ADMIN),
    (libc::SYS_finit_module, SYS_MODULE),
    (libc::SYS_fsconfig, SYS_ADMIN),
    (libc::SYS_fsmount, SYS_ADMIN),
    (libc::SYS_fsopen, SYS_ADMIN),
    (libc::SYS_fspick, SYS_ADMIN),
    (libc::SYS_init_module, SYS_MODULE),
    (libc::SYS_io_uring_enter, NEVER),
    (libc::SYS_io_uring_register, NEVER),
    (libc::SYS_io_uring_setup, NEVER),
    (libc::SYS_kexec_file_load, NEVER),
    (libc::SYS_kexec_load, NEVER),
    (libc::SYS_keyctl, NEVER),
    (libc::SYS_lookup_dcookie, SYS_ADMIN),
    (libc::SYS_mbind, SYS_NICE),
    (libc::SYS_migrate_pages, NEVER),
    (libc::SYS_mount, SYS_ADMIN),
    (libc::SYS_mount_setattr, SYS_ADMIN),
    (libc::SYS_move_mount, SYS_ADMIN),
    (libc::SYS_move_pages, NEVER),
    (libc::SYS_nfsservctl, NEVER),
    (libc::SYS_open_by_handle_at, DAC_READ_SEARCH),
    (libc::SYS_open_tree, SYS_ADMIN),
    (libc::SYS_perf_event_open, SYS_ADMIN),
    (libc::SYS_pivot_root, NEVER),
    (libc::SYS_process_madvise, SYS_PTRACE),
    (libc::SYS_quotactl, SYS_ADMIN),
    (libc::SYS_reboot, SYS_BOOT),
    (libc::SYS_request_key, NEVER),
    (libc::SYS_set_mempolicy, SYS_NICE),
    (libc::SYS_setdomainname, SYS_ADMIN),
    (libc::SYS_sethostname, SYS_ADMIN),
    (libc::SYS_setns, SYS_ADMIN),
    (libc::SYS_settimeofday, SYS_TIME),
    (libc::SYS_swapoff, NEVER),
    (libc::SYS_swapon, NEVER),
    (libc::SYS_syslog, SYSLOG),
    (libc::SYS_umount2, SYS_ADMIN),
    (libc::SYS_unshare, SYS_ADMIN),
    (libc::SYS_userfaultfd, NEVER),
    (libc::SYS_vhangup, SYS_TTY_CONFIG),
];

/// One instruction of the kernel's filter machine.
type Instruction = libc::sock_filter;

/// Loads the filter for a container that holds `capabilities`. There is no way back.
#[expect(unsafe_code, reason = "seccomp has no safe form")]
pub(super) fn apply(capabilities: u64) -> io::Result<()> {
    let mut program = program(capabilities);
    let length = u16::try_from(program.len()).map_err(io::Error::other)?;
    let program = libc::sock_fprog { len: length, filter: program.as_mut_ptr() };
    // SAFETY: `program` points to `len` instructions that live until the call returns; the kernel
    // copies and checks them.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            0,
            std::ptr::from_ref(&program),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn program(capabilities: u64) -> Vec<Instruction> {
    let denied = libc::SECCOMP_RET_ERRNO | libc::EPERM.cast_unsigned();
    let unknown = libc::SECCOMP_RET_ERRNO | libc::ENOSYS.cast_unsigned();
    let holds = |capability: u8| capabilities & (1 << capability) != 0;
    let mut program = vec![
        load(OFFSET_ARCHITECTURE),
        // Another architecture's numbers mean other calls.
        jump(BPF_JEQ, ARCHITECTURE, 1, 0),
        answer(denied),
        load(OFFSET_NUMBER),
        jump(BPF_JGE, UNKNOWN, 0, 1),
        answer(unknown),
    ];
    for (number, capability) in DENIED {
        if !holds(*capability) {
            program.extend([jump(BPF_JEQ, call(*number), 0, 1), answer(denied)]);
        }
    }
    if !holds(SYS_ADMIN) {
        // The flags of `clone3` are behind a pointer, out of a filter's sight.
        program.extend([jump(BPF_JEQ, call(libc::SYS_clone3), 0, 1), answer(unknown)]);
        program.extend([
            jump(BPF_JEQ, call(libc::SYS_clone), 0, 3),
            load(OFFSET_FIRST_ARGUMENT),
            jump(BPF_JSET, CLONE_NAMESPACES, 0, 1),
            answer(denied),
        ]);
    }
    program.push(answer(libc::SECCOMP_RET_ALLOW));
    program
}

fn call(number: libc::c_long) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn load(offset: u32) -> Instruction {
    instruction(BPF_LD | BPF_W | BPF_ABS, offset, 0, 0)
}

fn jump(condition: u32, value: u32, then: u8, otherwise: u8) -> Instruction {
    instruction(BPF_JMP | condition | BPF_K, value, then, otherwise)
}

fn answer(value: u32) -> Instruction {
    instruction(BPF_RET | BPF_K, value, 0, 0)
}

fn instruction(code: u32, k: u32, jt: u8, jf: u8) -> Instruction {
    Instruction { code: u16::try_from(code).unwrap_or(u16::MAX), jt, jf, k }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel would answer.
    fn run(program: &[Instruction], number: libc::c_long, argument: u32) -> u32 {
        let (mut at, mut value) = (0usize, 0u32);
        loop {
            let i = &program[at];
            at += 1;
            let code = u32::from(i.code);
            if code == BPF_RET | BPF_K {
                return i.k;
            } else if code == BPF_LD | BPF_W | BPF_ABS {
                value = match i.k {
                    OFFSET_NUMBER => call(number),
                    OFFSET_ARCHITECTURE => ARCHITECTURE,
                    _ => argument,
                };
            } else {
                let holds = match code & 0xf0 {
                    BPF_JEQ => value == i.k,
                    BPF_JGE => value >= i.k,
                    _ => value & i.k != 0,
                };
                at += usize::from(if holds { i.jt } else { i.jf });
            }
        }
    }

    #[test]
    fn calls_are_denied_unless_a_capability_allows_them() {
        let (none, admin) = (program(0), program(1 << SYS_ADMIN));
        let denied = libc::SECCOMP_RET_ERRNO | 1;
        let allowed = libc::SECCOMP_RET_ALLOW;
        assert_eq!(run(&none, libc::SYS_mount, 0), denied);
        assert_eq!(run(&admin, libc::SYS_mount, 0), allowed);
        assert_eq!(run(&admin, libc::SYS_keyctl, 0), denied);
        assert_eq!(run(&none, libc::SYS_read, 0), allowed);
        assert_eq!(run(&none, libc::SYS_clone, 0x11), allowed, "a plain fork");
        assert_eq!(run(&none, libc::SYS_clone, 0x1000_0000), denied, "a user namespace");
        assert_eq!(run(&none, libc::SYS_clone3, 0), libc::SECCOMP_RET_ERRNO | 38);
        assert_eq!(run(&none, 4_000, 0), libc::SECCOMP_RET_ERRNO | 38);
    }
}
