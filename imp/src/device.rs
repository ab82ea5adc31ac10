//! Which devices may a job open? RFC 15 and systemd's `DeviceAllow`: a list becomes a program in the kernel.

use std::io;
use std::os::fd::BorrowedFd;

use crate::sys::bpf::{Instruction, attach_device_program};

/// One device, or several: numbers that are `None` mean all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Character device; else block device.
    pub character: bool,
    /// Major number.
    pub major: Option<u32>,
    /// Minor number.
    pub minor: Option<u32>,
    /// Bits of `BPF_DEVCG_ACC_*`: 1 mknod, 2 read, 4 write.
    pub access: u8,
}

const MKNOD: u8 = 1;
const READ: u8 = 2;
const WRITE: u8 = 4;
const BLOCK_DEVICE: i32 = 1;
const CHARACTER_DEVICE: i32 = 2;

impl Rule {
    /// Reads `c:MAJOR:MINOR:ACCESS`, in which a number may be `*`.
    pub fn parse(text: &str) -> Option<Self> {
        let mut fields = text.split(':');
        let character = match fields.next()? {
            "c" => true,
            "b" => false,
            _ => return None,
        };
        let mut number = || match fields.next()? {
            "*" => Some(None),
            digits => digits.parse::<u32>().ok().map(Some),
        };
        let (major, minor) = (number()?, number()?);
        let mut access = 0;
        for letter in fields.next()?.chars() {
            access |= match letter {
                'r' => READ,
                'w' => WRITE,
                'm' => MKNOD,
                _ => return None,
            };
        }
        (access != 0 && fields.next().is_none()).then_some(Rule {
            character,
            major,
            minor,
            access,
        })
    }
}

const fn code(code: u8, registers: u8, offset: i16, value: i32) -> Instruction {
    Instruction {
        code,
        registers,
        offset,
        value,
    }
}

/// `r = *(u32 *)(r1 + offset)`, `r &= value`, `r >>= value`, `r = value`, `exit`
const LOAD_WORD: u8 = 0x61;
const AND: u8 = 0x54;
const SHIFT_RIGHT: u8 = 0x74;
const SET: u8 = 0xb4;
const EXIT: u8 = 0x95;
const JUMP_IF_NOT: u8 = 0x56;

/// Returns the program: 1 when a rule has the device with every access that is wanted, else 0.
fn program(rules: &[Rule]) -> Vec<Instruction> {
    let (kind, access, major, minor) = (2, 3, 4, 5);
    let mut code_list = vec![
        code(LOAD_WORD, kind | 1 << 4, 0, 0),
        code(AND, kind, 0, 0xffff),
        code(LOAD_WORD, access | 1 << 4, 0, 0),
        code(SHIFT_RIGHT, access, 0, 16),
        code(LOAD_WORD, major | 1 << 4, 4, 0),
        code(LOAD_WORD, minor | 1 << 4, 8, 0),
    ];
    for rule in rules {
        let wanted = if rule.character {
            CHARACTER_DEVICE
        } else {
            BLOCK_DEVICE
        };
        let mut tests = vec![(kind, wanted)];
        tests.extend(rule.major.map(|number| (major, number.cast_signed())));
        tests.extend(rule.minor.map(|number| (minor, number.cast_signed())));
        // r6 = access & not allowed, which must be nothing; then `return 1`.
        let tail = [
            code(0xbc, 6 | access << 4, 0, 0),
            code(AND, 6, 0, i32::from(!rule.access & 7)),
            code(JUMP_IF_NOT, 6, 2, 0),
            code(SET, 0, 0, 1),
            code(EXIT, 0, 0, 0),
        ];
        let count = tests.len();
        for (at, (register, value)) in tests.into_iter().enumerate() {
            let skip = i16::try_from(count - at - 1 + tail.len()).unwrap_or(i16::MAX);
            code_list.push(code(JUMP_IF_NOT, register, skip, value));
        }
        code_list.extend(tail);
    }
    code_list.extend([code(SET, 0, 0, 0), code(EXIT, 0, 0, 0)]);
    code_list
}

/// Lets a control group open these devices only.
///
/// # Errors
/// What `bpf(2)` returns; the job must not be started then.
pub fn contain(cgroup: BorrowedFd<'_>, rules: &[Rule]) -> io::Result<()> {
    attach_device_program(cgroup, &program(rules))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the program as the kernel would.
    fn decide(rules: &[Rule], kind: i32, access: u8, major: u32, minor: u32) -> bool {
        let mut registers = [0u32; 11];
        let context = [u32::from(access) << 16 | kind.cast_unsigned(), major, minor];
        let code_list = program(rules);
        let mut at = 0usize;
        loop {
            let step = code_list[at];
            at += 1;
            let to = usize::from(step.registers & 15);
            let from = usize::from(step.registers >> 4);
            match step.code {
                LOAD_WORD => registers[to] = context[usize::try_from(step.offset / 4).unwrap()],
                AND => registers[to] &= step.value.cast_unsigned(),
                SHIFT_RIGHT => registers[to] >>= step.value,
                SET => registers[to] = step.value.cast_unsigned(),
                0xbc => registers[to] = registers[from],
                JUMP_IF_NOT => {
                    if registers[to] != step.value.cast_unsigned() {
                        at += usize::try_from(step.offset).unwrap();
                    }
                }
                EXIT => return registers[0] == 1,
                other => panic!("{other:#x}"),
            }
        }
    }

    #[test]
    fn rules_are_read() {
        let rule = Rule::parse("c:1:3:rw").unwrap();
        assert_eq!(
            (rule.major, rule.minor, rule.access),
            (Some(1), Some(3), READ | WRITE)
        );
        assert_eq!(Rule::parse("b:8:*:m").unwrap().minor, None);
        for bad in [
            "",
            "x:1:3:r",
            "c:1:3",
            "c:1:3:",
            "c:1:3:z",
            "c:1:3:r:r",
            "c:-1:3:r",
            "c:1::r",
        ] {
            assert_eq!(Rule::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn only_what_a_rule_names_is_allowed() {
        let rules = [
            Rule::parse("c:1:3:rw").unwrap(),
            Rule::parse("c:136:*:r").unwrap(),
        ];
        let cases = [
            (CHARACTER_DEVICE, READ, 1, 3, true),
            (CHARACTER_DEVICE, READ | WRITE, 1, 3, true),
            (CHARACTER_DEVICE, MKNOD, 1, 3, false),
            (BLOCK_DEVICE, READ, 1, 3, false),
            (CHARACTER_DEVICE, READ, 1, 5, false),
            (CHARACTER_DEVICE, READ, 136, 77, true),
            (CHARACTER_DEVICE, READ | WRITE, 136, 77, false),
        ];
        for (kind, access, major, minor, want) in cases {
            assert_eq!(
                decide(&rules, kind, access, major, minor),
                want,
                "{kind} {access} {major}:{minor}"
            );
        }
        assert!(!decide(&[], CHARACTER_DEVICE, READ, 1, 3));
    }
}
