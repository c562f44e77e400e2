//! Device rules for version 2, which has no files for them: a program that the kernel asks.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

/// Numbers from `linux/bpf.h`.
const PROG_LOAD: libc::c_int = 5;
const PROG_ATTACH: libc::c_int = 8;
const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_TYPE_CGROUP_DEVICE: u32 = 6;
const ALLOW_MULTI: u32 = 2;
const TYPE_BLOCK: i32 = 1;
const TYPE_CHARACTER: i32 = 2;
const ACCESS: [(char, i32); 3] = [('m', 1), ('r', 2), ('w', 4)];
const ACCESS_ALL: i32 = 7;

/// Operation codes from `linux/bpf_common.h` and `linux/bpf.h`.
const LOAD_WORD: u8 = 0x61;
const MOVE_REGISTER: u8 = 0xbc;
const MOVE_NUMBER: u8 = 0xb7;
const SHIFT_RIGHT: u8 = 0x74;
const AND: u8 = 0x54;
const JUMP_IF_NOT: u8 = 0x55;
const EXIT: u8 = 0x95;

/// Registers: the answer, the question, and its parts.
const ANSWER: u8 = 0;
const CONTEXT: u8 = 1;
const TYPE: u8 = 2;
const WANTED: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
const SCRATCH: u8 = 6;

/// One instruction in the kernel's layout.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    number: i32,
}

/// The beginning of `union bpf_attr` for loading.
#[repr(C)]
#[derive(Default)]
struct Load {
    prog_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    /// Log level and size, log buffer, kernel version and flags: not used.
    unused: [u64; 4],
}

/// The beginning of `union bpf_attr` for attaching.
#[repr(C)]
struct Attach {
    target: u32,
    program: u32,
    attach_type: u32,
    flags: u32,
}

/// Allows the processes of a cgroup the devices of `rules`, as version 1 spells them, and no
/// others. The kernel forgets the program with the cgroup.
pub(crate) fn apply(directory: &Path, rules: &[String]) -> io::Result<()> {
    let program = load(&program(rules)?)?;
    let cgroup = File::open(directory)?;
    attach(&cgroup, &program)
}

fn program(rules: &[String]) -> io::Result<Vec<Instruction>> {
    // The first word of the question is the access in its upper half, the type in its lower.
    let mut program = vec![
        from_context(TYPE, 0),
        copy(WANTED, TYPE),
        with_number(SHIFT_RIGHT, WANTED, 16),
        with_number(AND, TYPE, 0xffff),
        from_context(MAJOR, 4),
        from_context(MINOR, 8),
    ];
    for rule in rules {
        let malformed = || io::Error::new(io::ErrorKind::InvalidInput, rule.clone());
        program.extend(block(rule).ok_or_else(malformed)?);
    }
    program.extend([with_number(MOVE_NUMBER, ANSWER, 0), instruction(EXIT, 0, 0, 0, 0)]);
    Ok(program)
}

/// Answers yes when one rule allows it, and otherwise falls through to what follows.
fn block(rule: &str) -> Option<Vec<Instruction>> {
    let mut words = rule.split_whitespace();
    let kind = match words.next()? {
        "b" => TYPE_BLOCK,
        "c" => TYPE_CHARACTER,
        _ => return None,
    };
    let (major, minor) = words.next()?.split_once(':')?;
    let access = words.next()?;
    let allowed = ACCESS.iter().filter(|(letter, _)| access.contains(*letter));
    let denied = ACCESS_ALL & !allowed.map(|(_, bit)| bit).sum::<i32>();
    let mut conditions = vec![(TYPE, kind)];
    for (register, number) in [(MAJOR, major), (MINOR, minor)] {
        if number != "*" {
            conditions.push((register, number.parse().ok()?));
        }
    }
    let mut block = vec![copy(SCRATCH, WANTED), with_number(AND, SCRATCH, denied)];
    conditions.push((SCRATCH, 0));
    // Behind the conditions are the two instructions that say yes.
    let length = i16::try_from(conditions.len()).ok()?;
    for (place, (register, number)) in (0i16..).zip(conditions) {
        block.push(instruction(JUMP_IF_NOT, register, 0, length - place + 1, number));
    }
    block.extend([with_number(MOVE_NUMBER, ANSWER, 1), instruction(EXIT, 0, 0, 0, 0)]);
    Some(block)
}

fn from_context(register: u8, offset: i16) -> Instruction {
    instruction(LOAD_WORD, register, CONTEXT, offset, 0)
}

fn copy(to: u8, from: u8) -> Instruction {
    instruction(MOVE_REGISTER, to, from, 0, 0)
}

fn with_number(code: u8, register: u8, number: i32) -> Instruction {
    instruction(code, register, 0, 0, number)
}

fn instruction(code: u8, to: u8, from: u8, offset: i16, number: i32) -> Instruction {
    Instruction { code, registers: from << 4 | to, offset, number }
}

#[expect(unsafe_code, reason = "bpf has no safe form")]
fn load(program: &[Instruction]) -> io::Result<OwnedFd> {
    let license = c"Apache-2.0";
    let attr = Load {
        prog_type: PROG_TYPE_CGROUP_DEVICE,
        instruction_count: u32::try_from(program.len()).map_err(io::Error::other)?,
        instructions: program.as_ptr() as u64,
        license: license.as_ptr() as u64,
        ..Load::default()
    };
    // SAFETY: `attr` has the kernel's layout and points to live memory of the length it says; the
    // kernel copies it and writes to none of it.
    let fd = unsafe {
        libc::syscall(libc::SYS_bpf, PROG_LOAD, std::ptr::from_ref(&attr), size_of::<Load>())
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel just made this descriptor for this caller.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[expect(unsafe_code, reason = "bpf has no safe form")]
fn attach(cgroup: &File, program: &OwnedFd) -> io::Result<()> {
    let number = |fd: i32| u32::try_from(fd).map_err(io::Error::other);
    let attr = Attach {
        target: number(cgroup.as_raw_fd())?,
        program: number(program.as_raw_fd())?,
        attach_type: ATTACH_TYPE_CGROUP_DEVICE,
        flags: ALLOW_MULTI,
    };
    // SAFETY: `attr` has the kernel's layout and holds descriptors that are open during the call.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, PROG_ATTACH, std::ptr::from_ref(&attr), size_of::<Attach>())
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel would answer.
    fn run(program: &[Instruction], kind: i32, access: i32, major: i32, minor: i32) -> bool {
        let context = [access << 16 | kind, major, minor];
        let mut registers = [0i32; 8];
        let mut at = 0usize;
        loop {
            let i = program[at];
            let (to, from) = (usize::from(i.registers & 15), usize::from(i.registers >> 4));
            at += 1;
            match i.code {
                LOAD_WORD => registers[to] = context[usize::try_from(i.offset / 4).unwrap()],
                MOVE_REGISTER => registers[to] = registers[from],
                MOVE_NUMBER => registers[to] = i.number,
                SHIFT_RIGHT => registers[to] >>= i.number,
                AND => registers[to] &= i.number,
                JUMP_IF_NOT if registers[to] != i.number => {
                    at += usize::try_from(i.offset).unwrap();
                }
                JUMP_IF_NOT => {}
                _ => return registers[0] == 1,
            }
        }
    }

    #[test]
    fn only_what_a_rule_names_is_allowed() {
        let rules = ["c *:* m".to_owned(), "c 1:3 rw".to_owned(), "b 8:* r".to_owned()];
        let program = program(&rules).unwrap();
        assert!(run(&program, TYPE_CHARACTER, 1, 9, 9), "make any character device");
        assert!(run(&program, TYPE_CHARACTER, 6, 1, 3));
        assert!(!run(&program, TYPE_CHARACTER, 7, 1, 3), "all three at once");
        assert!(!run(&program, TYPE_CHARACTER, 2, 1, 4));
        assert!(run(&program, TYPE_BLOCK, 2, 8, 77));
        assert!(!run(&program, TYPE_BLOCK, 4, 8, 77));
        assert!(!run(&program, TYPE_BLOCK, 1, 8, 0));
        assert!(super::program(&["x".to_owned()]).is_err());
    }

    #[test]
    fn the_kernel_takes_the_program() {
        match load(&program(&["c 1:3 rwm".to_owned()]).unwrap()) {
            // Built without it, which a node with version 2 never is.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
            other => drop(other.unwrap()),
        }
    }
}
