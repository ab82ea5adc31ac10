//! How is a keypair written to a file? As a CZMQ certificate, ZPL text (ZeroMQ RFC 4).
//!
//! ```text
//! #  ZeroMQ CURVE **Secret** Certificate
//! #  DO NOT DISTRIBUTE
//!
//! metadata
//!     name = "fluke"
//! curve
//!     public-key = "Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID"
//!     secret-key = "D:)Q[IlAW!ahhC2ac:9*A}h:p?([4%wOTJ%JR%cs"
//! ```
//!
//! Pure: the caller reads and writes the file and checks its permissions.

use std::fmt::Write as _;

use zeroize::Zeroizing;

use crate::keys::{Keypair, PublicKey, SecretKey};

/// The longest text that is read.
const TEXT_BYTES_MAX: usize = 64 * 1024;
/// What a secret certificate says about itself, as `flux keygen` writes it.
const SECRET_HEADER: &str = "#  ZeroMQ CURVE **Secret** Certificate\n#  DO NOT DISTRIBUTE\n\n";
const PUBLIC_HEADER: &str = "#  ZeroMQ CURVE Public Certificate\n\n";
/// ZPL: names are written this deep below their section.
const INDENT: &str = "    ";

/// A public key, its secret key if the certificate holds it, and what is noted about them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The public key.
    pub public: PublicKey,
    /// The secret key; `None` in a public certificate.
    pub secret: Option<SecretKey>,
    /// Names and values of the `metadata` section in their order.
    pub metadata: Vec<(String, String)>,
}

impl Certificate {
    /// Makes a secret certificate without metadata.
    #[must_use]
    pub fn new(keypair: Keypair) -> Self {
        Self {
            public: keypair.public,
            secret: Some(keypair.secret),
            metadata: Vec::new(),
        }
    }

    /// Returns the keypair, or `None` for a public certificate.
    #[must_use]
    pub fn keypair(&self) -> Option<Keypair> {
        self.secret.clone().map(|secret| Keypair {
            public: self.public,
            secret,
        })
    }

    /// Returns the value noted under a name.
    #[must_use]
    pub fn meta(&self, name: &str) -> Option<&str> {
        self.metadata
            .iter()
            .find(|(found, _)| found == name)
            .map(|(_, value)| value.as_str())
    }

    /// Writes the certificate as text, wiped when dropped. `comments` become comment lines at the top, in front of the
    /// warning that a secret certificate carries.
    ///
    /// # Errors
    /// [`CertificateError::Metadata`] for a name or value that the format cannot hold.
    pub fn encode(&self, comments: &[&str]) -> Result<Zeroizing<String>, CertificateError> {
        let mut text = Zeroizing::new(String::with_capacity(1024));
        for comment in comments {
            put(
                &mut text,
                format_args!("#  {}\n", comment.replace(|c: char| c.is_control(), " ")),
            );
        }
        text.push_str(if self.secret.is_some() {
            SECRET_HEADER
        } else {
            PUBLIC_HEADER
        });
        text.push_str("metadata\n");
        for (name, value) in &self.metadata {
            let quote = quote_for(value).filter(|_| is_name(name));
            let quote = quote.ok_or_else(|| CertificateError::Metadata { name: name.clone() })?;
            put(
                &mut text,
                format_args!("{INDENT}{name} = {quote}{value}{quote}\n"),
            );
        }
        put(
            &mut text,
            format_args!("curve\n{INDENT}public-key = \"{}\"\n", self.public),
        );
        if let Some(secret) = &self.secret {
            put(
                &mut text,
                format_args!("{INDENT}secret-key = \"{}\"\n", *secret.to_z85()),
            );
        }
        Ok(text)
    }

    /// Reads a certificate. Unknown sections and names below `curve` are skipped, as CZMQ does.
    ///
    /// # Errors
    /// [`CertificateError`] names the line. It never shows a key.
    pub fn decode(text: &str) -> Result<Self, CertificateError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(CertificateError::TooLarge);
        }
        let mut fields = Fields::default();
        let mut section = "";
        for (index, raw) in text.lines().enumerate() {
            let line_number = index + 1;
            let line = Line::parse(raw).ok_or(CertificateError::Syntax { line_number })?;
            match line {
                Line::Empty => {}
                Line::Section(name) => section = name,
                Line::Property(name, value) => fields.take(section, name, value, line_number)?,
            }
        }
        let public = fields.public.ok_or(CertificateError::NoPublicKey)?;
        if fields
            .secret
            .as_ref()
            .is_some_and(|secret| secret.public_key() != public)
        {
            return Err(CertificateError::Mismatch);
        }
        Ok(Self {
            public,
            secret: fields.secret,
            metadata: fields.metadata,
        })
    }
}

/// Appends formatted text, in which nothing can fail.
fn put(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    let _ = text.write_fmt(arguments);
}

#[derive(Default)]
struct Fields {
    public: Option<PublicKey>,
    secret: Option<SecretKey>,
    metadata: Vec<(String, String)>,
}

impl Fields {
    fn take(
        &mut self,
        section: &str,
        name: &str,
        value: &str,
        line_number: usize,
    ) -> Result<(), CertificateError> {
        let duplicate = match (section, name) {
            ("metadata", _) => {
                let known = self.metadata.iter().any(|(found, _)| found == name);
                self.metadata.push((name.to_owned(), value.to_owned()));
                known
            }
            ("curve", "public-key") => {
                let key = value.parse().map_err(|_| CertificateError::Key { line_number })?;
                self.public.replace(key).is_some()
            }
            ("curve", "secret-key") => {
                let key = value.parse().map_err(|_| CertificateError::Key { line_number })?;
                self.secret.replace(key).is_some()
            }
            _ => false,
        };
        if duplicate {
            Err(CertificateError::Duplicate { line_number })
        } else {
            Ok(())
        }
    }
}

/// A line of ZPL.
enum Line<'a> {
    Empty,
    /// A name without indentation: a section.
    Section(&'a str),
    /// An indented name with a value.
    Property(&'a str, &'a str),
}

impl<'a> Line<'a> {
    fn parse(raw: &'a str) -> Option<Self> {
        let content = raw.trim();
        if content.is_empty() || content.starts_with('#') {
            return Some(Self::Empty);
        }
        let indented = raw.starts_with([' ', '\t']);
        let Some((name, rest)) = content.split_once('=') else {
            let name = strip_comment(content);
            // An indented name without a value is a deeper section, of which certificates have none.
            return (is_name(name) && !indented).then_some(Self::Section(name));
        };
        let name = name.trim_end();
        let value = parse_value(rest.trim_start())?;
        if !is_name(name) {
            return None;
        }
        // A property at the top level belongs to no section.
        Some(if indented {
            Self::Property(name, value)
        } else {
            Self::Empty
        })
    }
}

/// Takes a quoted value with nothing but a comment behind it, or a bare one up to a comment.
fn parse_value(text: &str) -> Option<&str> {
    for quote in ['"', '\''] {
        if let Some(rest) = text.strip_prefix(quote) {
            let (value, behind) = rest.split_once(quote)?;
            return strip_comment(behind).is_empty().then_some(value);
        }
    }
    Some(strip_comment(text))
}

fn strip_comment(text: &str) -> &str {
    text.split_once('#').map_or(text, |(front, _)| front).trim_end()
}

/// RFC 4: letters, digits and `$-_@.&+/`.
fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "$-_@.&+/".contains(c))
}

/// Returns the quote that does not occur in a value, if the value fits a line.
fn quote_for(value: &str) -> Option<char> {
    if value.contains(|c: char| c.is_control()) {
        return None;
    }
    ['"', '\''].into_iter().find(|quote| !value.contains(*quote))
}

/// Why a certificate cannot be read or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// A text above 64 KiB.
    #[error("certificate is too large")]
    TooLarge,
    /// A line that is not ZPL.
    #[error("line {line_number} is malformed")]
    Syntax {
        /// Counted from 1.
        line_number: usize,
    },
    /// A key that is not 40 Z85 characters.
    #[error("line {line_number} holds no valid key")]
    Key {
        /// Counted from 1.
        line_number: usize,
    },
    /// A name for the second time.
    #[error("line {line_number} repeats a name")]
    Duplicate {
        /// Counted from 1.
        line_number: usize,
    },
    /// There is no public key.
    #[error("certificate has no public key")]
    NoPublicKey,
    /// The two keys do not belong together.
    #[error("secret key does not belong to the public key")]
    Mismatch,
    /// A name or value that cannot be written.
    #[error("metadata '{name}' cannot be written")]
    Metadata {
        /// The name.
        name: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PUBLIC: &str = "Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID";
    const SECRET: &str = "D:)Q[IlAW!ahhC2ac:9*A}h:p?([4%wOTJ%JR%cs";

    fn certificate() -> Certificate {
        let mut certificate = Certificate::new(Keypair::from_secret(SECRET.parse().unwrap()));
        certificate.metadata = vec![
            ("name".into(), "fluke".into()),
            ("keygen.userid".into(), "1000".into()),
        ];
        certificate
    }

    #[test]
    fn a_certificate_has_the_form_that_flux_keygen_writes() {
        let text = certificate()
            .encode(&["****  Generated on 2024-01-01 by flux  ****"])
            .unwrap();
        let expected = format!(
            "#  ****  Generated on 2024-01-01 by flux  ****\n\
             #  ZeroMQ CURVE **Secret** Certificate\n\
             #  DO NOT DISTRIBUTE\n\n\
             metadata\n    name = \"fluke\"\n    keygen.userid = \"1000\"\n\
             curve\n    public-key = \"{PUBLIC}\"\n    secret-key = \"{SECRET}\"\n"
        );
        assert_eq!(*text, expected);
        assert_eq!(Certificate::decode(&text).unwrap(), certificate());
    }

    #[test]
    fn a_public_certificate_holds_no_secret() {
        let public = Certificate {
            secret: None,
            ..certificate()
        };
        let text = public.encode(&[]).unwrap();
        assert!(!text.contains("secret-key") && text.contains("Public Certificate"));
        let read = Certificate::decode(&text).unwrap();
        assert_eq!(
            (read.keypair(), read.meta("name"), read.meta("x")),
            (None, Some("fluke"), None)
        );
    }

    #[test]
    fn other_writers_forms_are_read() {
        let text = format!(
            "# comment\r\n\nversion = 1\nmetadata # notes\n\tname='it is \"quoted\"'\n    bare = word # note\n\
             other\n    public-key = \"ignored\"\ncurve\n    future = 1\n    public-key = \"{PUBLIC}\" # mine\n"
        );
        let read = Certificate::decode(&text).unwrap();
        assert_eq!(read.meta("name"), Some("it is \"quoted\""));
        assert_eq!(read.meta("bare"), Some("word"));
        assert_eq!((read.public.to_z85().as_str(), read.secret), (PUBLIC, None));
    }

    #[test]
    fn damaged_certificates_are_refused_without_showing_keys() {
        let good = certificate().encode(&[]).unwrap();
        let other = Keypair::generate().unwrap();
        for (text, expected) in [
            (String::new(), CertificateError::NoPublicKey),
            (
                good.replace(PUBLIC, "short"),
                CertificateError::Key { line_number: 8 },
            ),
            (
                good.replace(SECRET, &SECRET[1..]),
                CertificateError::Key { line_number: 9 },
            ),
            (
                good.replace(PUBLIC, &other.public.to_z85()),
                CertificateError::Mismatch,
            ),
            (
                good.replace("\"fluke\"", "\"fluke"),
                CertificateError::Syntax { line_number: 5 },
            ),
            (
                good.replace("curve\n", "curve section\n"),
                CertificateError::Syntax { line_number: 7 },
            ),
            (
                format!("{}    secret-key = \"{SECRET}\"\n", *good),
                CertificateError::Duplicate { line_number: 10 },
            ),
            (" ".repeat(TEXT_BYTES_MAX + 1), CertificateError::TooLarge),
        ] {
            let err = Certificate::decode(&text).unwrap_err();
            assert_eq!(err, expected);
            assert!(!err.to_string().contains(&SECRET[1..]));
        }
    }

    #[test]
    fn metadata_that_would_break_the_format_is_refused() {
        for (name, value) in [
            ("a b", "x"),
            ("", "x"),
            ("a", "x\ny"),
            ("a", "both ' and \""),
            ("a=", "x"),
        ] {
            let mut broken = certificate();
            broken.metadata = vec![(name.into(), value.into())];
            assert_eq!(
                broken.encode(&[]),
                Err(CertificateError::Metadata { name: name.into() })
            );
        }
        let sneaky = certificate().encode(&["line\ncurve\n"]).unwrap();
        assert_eq!(
            Certificate::decode(&sneaky).unwrap(),
            certificate(),
            "a comment stays one line"
        );
    }

    proptest! {
        #[test]
        fn certificates_round_trip(
            secret in any::<[u8; 32]>(),
            metadata in prop::collection::btree_map("[a-zA-Z0-9.-]{1,20}", "[ -!#-~äöü]{0,30}", 0..5),
        ) {
            let mut certificate = Certificate::new(Keypair::from_secret(SecretKey::from_bytes(secret)));
            certificate.metadata = metadata.into_iter().collect();
            let text = certificate.encode(&[]).unwrap();
            prop_assert_eq!(Certificate::decode(&text).unwrap(), certificate);
        }

        #[test]
        fn any_text_is_read_or_refused(text in "(metadata|curve|    a = \"b\"|[ -~]{0,20}|\n){0,20}") {
            drop(Certificate::decode(&text));
        }
    }
}
