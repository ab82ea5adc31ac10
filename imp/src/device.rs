//! Which devices may a job open? RFC 15 and systemd's `DeviceAllow`: a list becomes a program in the kernel.

use std::fs::File;
use std::io;

use crate::sys::bpf::{Instruction, attach_device_program};

/// One device, or several: numbers that are `None` mean all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// `BPF_DEVCG_DEV_*`: 1 block device, 2 character device.
    pub kind: i32,
    /// Major number.
    pub major: Option<u32>,
    /// Minor number.
    pub minor: Option<u32>,
    /// Bits of `BPF_DEVCG_ACC_*`: 1 mknod, 2 read, 4 write.
    pub access: i32,
}

impl Rule {
    /// Reads `c:MAJOR:MINOR:ACCESS`, in which a number may be `*`.
    pub fn parse(text: &str) -> Option<Self> {
        let fields: Vec<&str> = text.split(':').collect();
        let [kind, major, minor, letters] = *fields.as_slice() else {
            return None;
        };
        let kind = match kind {
            "b" => 1,
            "c" => 2,
            _ => return None,
        };
        let number = |text: &str| match text {
            "*" => Some(None),
            digits => digits.parse::<u32>().ok().map(Some),
        };
        let mut access = 0;
        for letter in letters.chars() {
            access |= 1 << "mrw".find(letter)?;
        }
        let (major, minor) = (number(major)?, number(minor)?);
        (access != 0).then_some(Rule {
            kind,
            major,
            minor,
            access,
        })
    }
}

/// `r = *(u32 *)(r1 + offset)`, `r &= value`, `r >>= value`, `r = value`, `r = s`, `exit`
const LOAD_WORD: u8 = 0x61;
const AND: u8 = 0x54;
const SHIFT_RIGHT: u8 = 0x74;
const SET: u8 = 0xb4;
const COPY: u8 = 0xbc;
const EXIT: u8 = 0x95;
const JUMP_IF_NOT: u8 = 0x56;
/// All bits of access.
const ACCESS_ALL: i32 = 7;

/// Returns the program: 1 when a rule has the device with every access that is wanted, else 0.
fn program(rules: &[Rule]) -> Vec<Instruction> {
    // Registers. The last holds what is wanted and not allowed, which must be nothing.
    let (kind, access, major, minor, denied) = (2, 3, 4, 5, 6);
    let mut list = vec![
        Instruction(LOAD_WORD, kind | 1 << 4, 0, 0),
        Instruction(AND, kind, 0, 0xffff),
        Instruction(LOAD_WORD, access | 1 << 4, 0, 0),
        Instruction(SHIFT_RIGHT, access, 0, 16),
        Instruction(LOAD_WORD, major | 1 << 4, 4, 0),
        Instruction(LOAD_WORD, minor | 1 << 4, 8, 0),
    ];
    for rule in rules {
        list.push(Instruction(COPY, denied | access << 4, 0, 0));
        list.push(Instruction(AND, denied, 0, ACCESS_ALL & !rule.access));
        let mut tests = vec![(kind, rule.kind), (denied, 0)];
        tests.extend(rule.major.map(|number| (major, number.cast_signed())));
        tests.extend(rule.minor.map(|number| (minor, number.cast_signed())));
        // Each test that fails skips the rest of them and the two instructions that allow.
        let mut skip = i16::try_from(tests.len() + 2).unwrap_or(0);
        for (register, value) in tests {
            skip -= 1;
            list.push(Instruction(JUMP_IF_NOT, register, skip, value));
        }
        list.extend([Instruction(SET, 0, 0, 1), Instruction(EXIT, 0, 0, 0)]);
    }
    list.extend([Instruction(SET, 0, 0, 0), Instruction(EXIT, 0, 0, 0)]);
    list
}

/// Lets a control group open only the devices that these rules name.
///
/// # Errors
/// A rule that is none, or what `bpf(2)` returns; the job must not be started then.
pub fn contain(cgroup: &File, rules: &[String]) -> io::Result<()> {
    let malformed = io::Error::new(io::ErrorKind::InvalidInput, "a device rule is malformed");
    let rules: Option<Vec<Rule>> = rules.iter().map(|rule| Rule::parse(rule)).collect();
    attach_device_program(cgroup, &program(&rules.ok_or(malformed)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MKNOD: i32 = 1;
    const READ: i32 = 2;
    const WRITE: i32 = 4;
    const BLOCK_DEVICE: i32 = 1;
    const CHARACTER_DEVICE: i32 = 2;

    /// Runs the program as the kernel would.
    fn decide(rules: &[Rule], kind: i32, access: i32, major: u32, minor: u32) -> bool {
        let mut registers = [0u32; 11];
        let context = [(access << 16 | kind).cast_unsigned(), major, minor];
        let code_list = program(rules);
        let mut at = 0usize;
        loop {
            let step = code_list[at];
            at += 1;
            let to = usize::from(step.1 & 15);
            let from = usize::from(step.1 >> 4);
            match step.0 {
                LOAD_WORD => registers[to] = context[usize::try_from(step.2 / 4).unwrap()],
                AND => registers[to] &= step.3.cast_unsigned(),
                SHIFT_RIGHT => registers[to] >>= step.3,
                SET => registers[to] = step.3.cast_unsigned(),
                COPY => registers[to] = registers[from],
                JUMP_IF_NOT => {
                    if registers[to] != step.3.cast_unsigned() {
                        at += usize::try_from(step.2).unwrap();
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
