use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "flux-sign-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Scratch(path)
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        mode(&path, 0o644);
        path
    }

    fn load(&self) -> Result<Config, String> {
        let seen = fs::metadata(&self.0).unwrap();
        let checks = PathChecks::On {
            euid: seen.uid(),
            egid: seen.gid(),
        };
        load(&self.0, checks).map_err(|err| err.to_string())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        mode(&self.0, 0o755);
        fs::remove_dir_all(&self.0).unwrap();
    }
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

const GOOD: &str =
    "[sign]\nmax-ttl = 1209600  # 2 weeks\ndefault-type = \"munge\"\nallowed-types = [ \"munge\" ]\n";

#[test]
fn later_files_replace_whole_tables() {
    let scratch = Scratch::new();
    scratch.file("a.toml", &format!("{GOOD}[sign.munge]\nsocket-path = \"/a\"\n"));
    assert_eq!(scratch.load().unwrap().munge_socket, Some(PathBuf::from("/a")));
    scratch.file("b.toml", &GOOD.replace("1209600", "60"));
    scratch.file(".c.toml", "not TOML");
    scratch.file("c.txt", "not TOML");
    let config = scratch.load().unwrap();
    assert_eq!((config.max_ttl, config.munge_socket), (60, None));
}

#[test]
fn errors_say_where() {
    let scratch = Scratch::new();
    let pattern = format!("pattern {}/*.toml matched nothing", scratch.0.display());
    assert_eq!(scratch.load().unwrap_err(), pattern);
    assert!(load(Path::new("/nonexistent"), PathChecks::Off).is_err());
    let path = scratch.file("a.toml", "[sign]\nmax-ttl = 1\nmax-ttl = 2\n");
    let err = scratch.load().unwrap_err();
    assert!(err.starts_with(&format!("{}::3: ", path.display())), "{err}");
    for (text, words) in [
        ("[sign]\n\"a.b\" = 1\n", "::2: key 'a.b' must be"),
        ("[sign]\nx = 1979-05-27\n", "::2: no key takes a date"),
        ("x = 99999999999999999999\n", "::1: a number too large"),
        ("x = nan\n", "::1: a number that is not finite"),
        ("x = \"a\\u0000b\"\n", "::1: a string with a NUL"),
        ("x = \"\"\"abc\n", "::"),
        ("[[x]]\n[x]\n", "::2: "),
    ] {
        scratch.file("a.toml", text);
        let err = scratch.load().unwrap_err();
        assert!(err.contains(words), "{text:?}: {err}");
    }
    let deep = format!("x = {}{}\n", "[".repeat(5000), "]".repeat(5000));
    scratch.file("a.toml", &deep);
    assert!(scratch.load().is_err());
    let many: String = (0..5000).map(|n| format!("k{n}=1\n")).collect();
    scratch.file("a.toml", &many);
    assert!(scratch.load().unwrap_err().contains("too many"));
    scratch.file("a.toml", &"#".repeat(66 << 10));
    assert!(scratch.load().unwrap_err().contains("more than 65536 bytes"));
    fs::write(scratch.0.join("a.toml"), b"\xff").unwrap();
    assert!(scratch.load().is_err());
}

#[test]
fn files_that_others_could_change() {
    let scratch = Scratch::new();
    let path = scratch.file("a.toml", GOOD);
    assert!(scratch.load().is_ok());
    let cases = [
        (&path, 0o666, "bad file permissions (0666)"),
        (&path, 0o646, "bad file permissions (0646)"),
        (
            &scratch.0,
            0o777,
            "parent directory is world-writable without sticky bit",
        ),
    ];
    for (target, bits, words) in cases {
        mode(target, bits);
        let err = scratch.load().unwrap_err();
        assert!(
            err.ends_with(&format!("a.toml::-1: unable to open: {words}")),
            "{err}"
        );
        assert!(load(&scratch.0, PathChecks::Off).is_ok());
        mode(target, if bits == 0o777 { 0o755 } else { 0o644 });
    }
    mode(&scratch.0, 0o1777);
    assert!(scratch.load().is_ok());
    symlink(&path, scratch.0.join("b.toml")).unwrap();
    assert!(scratch.load().unwrap_err().ends_with("symbolic link"));
    fs::remove_file(scratch.0.join("b.toml")).unwrap();
    fs::create_dir(scratch.0.join("b.toml")).unwrap();
    assert!(
        scratch
            .load()
            .unwrap_err()
            .ends_with("File is not a regular file")
    );
    assert!(load(&scratch.0, PathChecks::Off).is_err());
}

#[test]
fn owners_and_groups() {
    let scratch = Scratch::new();
    let seen = fs::metadata(scratch.file("a.toml", GOOD)).unwrap();
    if seen.uid() != ROOT {
        assert_eq!(
            check_file(&seen, seen.uid() + 1, seen.gid()),
            Err("insecure file ownership".to_owned())
        );
    }
    mode(&scratch.0.join("a.toml"), 0o664);
    let seen = fs::metadata(scratch.0.join("a.toml")).unwrap();
    assert!(check_file(&seen, seen.uid(), seen.gid()).is_ok());
    assert!(check_file(&seen, seen.uid(), seen.gid() + 1).is_err());
    let parent = fs::metadata("/").unwrap();
    assert!(check_parent(&parent, 1, 1).is_ok());
    assert!(check_parent(&seen, 1, 1).is_err());
}
