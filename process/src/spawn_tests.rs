//! Do started programs get what was asked for, and failed starts the right error?

use super::*;
use crate::fd::{pipe, read_all_at};

fn output_of(mut command: Command) -> (String, WaitStatus) {
    let (reader, writer) = pipe().unwrap();
    command.fd(1, writer);
    let child = command.spawn().unwrap();
    let text = String::from_utf8(read_all_at(reader, 1 << 20).unwrap()).unwrap();
    (text, child.wait().unwrap())
}

fn sh(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    command
}

#[test]
fn environment_directory_and_status() {
    let mut command = sh("echo $A; pwd; exit 3");
    command.env([("A", "b c"), ("PATH", "/usr/bin:/bin")]).cwd("/usr");
    let (text, status) = output_of(command);
    assert_eq!(text, "b c\n/usr\n");
    assert_eq!(status.code(), Some(3));
}

#[test]
fn a_block_comes_before_variables_of_ones_own() {
    let block = EnvBlock::new([("A", "1"), ("PATH", "/nowhere"), ("PATH", "/usr/bin:/bin")]).unwrap();
    let mut command = sh("echo $A $B $HOME");
    command.env_block(&block).env([("B", "2")]);
    assert_eq!(output_of(command).0, "1 2\n");
    let mut command = sh("echo $A");
    command.env_block(&block);
    assert_eq!(output_of(command).0, "1\n", "nothing else of the caller");
    let mut command = sh("true");
    command.env_block(&block).env([("PATH", "/nowhere")]);
    assert_eq!(command.spawn().unwrap_err().exit_code(), 127);
    assert!(EnvBlock::new([("A", "\0")]).is_err());
}

#[test]
fn descriptors_may_be_permuted() {
    let (reader1, writer1) = pipe().unwrap();
    let (reader2, writer2) = pipe().unwrap();
    let (low1, low2) = (reader1.as_raw_fd(), reader2.as_raw_fd());
    let mut command = sh(&format!("read x <&{low2}; read y <&{low1}; echo $x $y"));
    crate::fd::write_all(&writer1, b"one\n").unwrap();
    crate::fd::write_all(&writer2, b"two\n").unwrap();
    command.fd(low2, reader1).fd(low1, reader2);
    drop((writer1, writer2));
    assert_eq!(output_of(command).0, "one two\n");
}

#[test]
fn nothing_else_is_inherited() {
    let (reader, writer) = pipe().unwrap();
    let (text, _) = output_of(sh("ls -l /proc/self/fd"));
    for fd in [&reader, &writer] {
        let name = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap();
        assert!(!text.contains(name.to_str().unwrap()), "{text}");
    }
}

#[test]
fn a_group_of_its_own_can_be_killed() {
    let mut command = sh("sleep 100 & wait");
    command.group(ProcessGroup::Own);
    let child = command.spawn().unwrap();
    assert_eq!(child.pidfd().try_wait().unwrap(), None);
    child.kill_group(Signal::SIGTERM).unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(15));
}

#[test]
fn ignored_and_blocked_signals_are_reset() {
    // The test harness ignores SIGPIPE as every Rust program does.
    let (text, _) = output_of(sh("grep -E 'Sig(Blk|Ign)' /proc/self/status"));
    for line in text.lines() {
        // The C library leaves its two internal signals (32 and 33) ignored.
        let mask = u64::from_str_radix(line.split('\t').nth(1).unwrap(), 16).unwrap();
        assert_eq!(mask & !0x1_8000_0000, 0, "{line}");
    }
}

#[test]
fn failures_name_the_object() {
    let error = Command::new("no-such-command").spawn().unwrap_err();
    assert_eq!((error.errnum(), error.exit_code()), (libc::ENOENT, 127));
    assert_eq!(error.to_string(), "no-such-command");
    let error = Command::new("/etc/passwd").spawn().unwrap_err();
    assert_eq!((error.errnum(), error.exit_code()), (libc::EACCES, 126));
    let mut command = sh("true");
    command.cwd("/no/such/directory");
    let error = command.spawn().unwrap_err();
    assert!(matches!(error, SpawnError::Cwd { .. }), "{error:?}");
    assert_eq!(error.errnum(), libc::ENOENT);
    let error = Command::new("").spawn().unwrap_err();
    assert_eq!(error.exit_code(), 127);
    let mut command = sh("true");
    command.arg("a\0b");
    assert!(matches!(command.spawn(), Err(SpawnError::Nul { .. })));
}

#[test]
fn the_path_of_the_child_is_searched() {
    let mut command = Command::new("sh");
    command.args(["-c", "true"]).env([("PATH", "/no/such")]);
    assert_eq!(command.spawn().unwrap_err().exit_code(), 127);
    let mut command = Command::new("sh");
    command.args(["-c", "true"]).env([("X", "1")]);
    assert!(command.spawn().unwrap().wait().unwrap().success());
}

#[test]
fn a_terminal_becomes_the_controlling_one() {
    let pty = crate::pty::Pty::open().unwrap();
    let mut command = sh("tty; echo hello >/dev/tty");
    command.controlling_tty(pty.slave_path());
    let child = command.spawn().unwrap();
    assert!(child.wait().unwrap().success());
    let mut text = Vec::new();
    let mut buffer = [0; 512];
    while let Ok(count) = crate::fd::read(&pty, &mut buffer) {
        text.extend_from_slice(&buffer[..count]);
    }
    let text = String::from_utf8(text).unwrap();
    assert!(text.starts_with("/dev/pts/"), "{text}");
    assert!(text.ends_with("hello\r\n"), "{text}");
}

#[test]
fn dev_null_is_given() {
    let mut command = sh("read x; echo got $?");
    command.null(0);
    assert_eq!(output_of(command).0, "got 1\n");
}
