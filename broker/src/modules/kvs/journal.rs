//! How is a transaction written down, so that a crash can be replayed?
//!
//! ```text
//! row    = record*
//! record = size body          body = kind:u8 …
//! commit   0 namespace seq count (key change)*       change = 0 object | 1 value | 2 appended | 3
//! create   1 namespace owner flags rootref            rootref as text
//! remove   2 namespace
//! absorb   3 namespace key seq                        moves into the primary namespace
//! ```
//!
//! Sizes and numbers are LEB128, texts and bytes have a size before them.

use super::blob::{BlobError, Reader, put_bytes, put_number};
use super::txn::{Change, Op, Txn};
use bytes::Bytes;
use flux_formats::blobref::BlobRef;
use flux_formats::treeobj::TreeObj;

/// Something that happened to the namespaces.
#[derive(Debug)]
pub(super) enum Record {
    /// A transaction was applied.
    Commit {
        namespace: String,
        /// Version that it became visible in.
        seq: u64,
        txn: Txn,
    },
    /// A namespace was made.
    Create {
        namespace: String,
        owner: u32,
        flags: u32,
        root: BlobRef,
    },
    /// A namespace was removed.
    Remove { namespace: String },
    /// A namespace moved into the primary one.
    Absorb {
        namespace: String,
        key: String,
        /// Version of the primary namespace.
        seq: u64,
    },
}

fn framed(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let mut body = Vec::with_capacity(256);
    write(&mut body);
    put_bytes(out, &body);
}

fn number(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// Appends a transaction that was applied.
pub(super) fn put_commit(out: &mut Vec<u8>, namespace: &str, seq: u64, txn: &Txn) {
    framed(out, |body| {
        body.push(0);
        put_bytes(body, namespace.as_bytes());
        put_number(body, number(seq));
        put_number(body, txn.ops.len());
        for op in &txn.ops {
            put_bytes(body, op.key.as_bytes());
            match &op.change {
                Change::Put(object) => {
                    body.push(0);
                    put_bytes(body, &object.encode());
                }
                Change::Value(bytes) => {
                    body.push(1);
                    put_bytes(body, bytes);
                }
                Change::Append(bytes) => {
                    body.push(2);
                    put_bytes(body, bytes);
                }
                // a graft is written as an absorb record
                Change::Unlink | Change::Graft(_) => body.push(3),
            }
        }
    });
}

/// Appends the making of a namespace.
pub(super) fn put_create(out: &mut Vec<u8>, namespace: &str, owner: u32, flags: u32, root: BlobRef) {
    framed(out, |body| {
        body.push(1);
        put_bytes(body, namespace.as_bytes());
        put_number(body, number(owner.into()));
        put_number(body, number(flags.into()));
        put_bytes(body, root.to_string().as_bytes());
    });
}

/// Appends the removal of a namespace.
pub(super) fn put_remove(out: &mut Vec<u8>, namespace: &str) {
    framed(out, |body| {
        body.push(2);
        put_bytes(body, namespace.as_bytes());
    });
}

/// Appends the move of a namespace into the primary one.
pub(super) fn put_absorb(out: &mut Vec<u8>, namespace: &str, key: &str, seq: u64) {
    framed(out, |body| {
        body.push(3);
        put_bytes(body, namespace.as_bytes());
        put_bytes(body, key.as_bytes());
        put_number(body, number(seq));
    });
}

/// Returns the records of a row.
///
/// # Errors
/// The row is damaged.
pub(super) fn read(row: &[u8]) -> Result<Vec<Record>, BlobError> {
    let mut rows = Reader { rest: row };
    let mut records = Vec::new();
    while !rows.rest.is_empty() {
        let mut body = Reader { rest: rows.bytes()? };
        records.push(read_record(&mut body)?);
    }
    Ok(records)
}

fn read_record(body: &mut Reader<'_>) -> Result<Record, BlobError> {
    let kind = body.byte()?;
    let namespace = body.text()?.to_owned();
    let small = |number: usize| u32::try_from(number).map_err(|_| BlobError::Damaged);
    Ok(match kind {
        0 => {
            let seq = long(body)?;
            let count = body.number()?;
            let mut ops = Vec::new();
            for _ in 0..count {
                ops.push(read_op(body)?);
            }
            Record::Commit {
                namespace,
                seq,
                txn: Txn { ops },
            }
        }
        1 => {
            let (owner, flags) = (small(body.number()?)?, small(body.number()?)?);
            let root = body.text()?.parse().map_err(|_| BlobError::Damaged)?;
            Record::Create {
                namespace,
                owner,
                flags,
                root,
            }
        }
        2 => Record::Remove { namespace },
        3 => {
            let key = body.text()?.to_owned();
            Record::Absorb {
                namespace,
                key,
                seq: long(body)?,
            }
        }
        _ => return Err(BlobError::Damaged),
    })
}

fn long(body: &mut Reader<'_>) -> Result<u64, BlobError> {
    u64::try_from(body.number()?).map_err(|_| BlobError::Damaged)
}

fn read_op(body: &mut Reader<'_>) -> Result<Op, BlobError> {
    let key = body.text()?.into();
    let change = match body.byte()? {
        0 => Change::Put(TreeObj::decode(body.bytes()?)?),
        1 => Change::Value(Bytes::copy_from_slice(body.bytes()?)),
        2 => Change::Append(Bytes::copy_from_slice(body.bytes()?)),
        3 => Change::Unlink,
        _ => return Err(BlobError::Damaged),
    };
    Ok(Op { key, change })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn round_trip() {
        let mut txn = Txn::new();
        txn.put("a.b", "x")
            .append("log", b"line\n")
            .unlink("c")
            .symlink("l", Some("ns"), ".")
            .mkdir("d");
        let mut row = Vec::new();
        put_create(
            &mut row,
            "job-1",
            7,
            0,
            "sha1-55ca6286e3e4f4fba5d0448333fa99fc5a404a73".parse().unwrap(),
        );
        put_commit(&mut row, "job-1", 300, &txn);
        put_absorb(&mut row, "job-1", "job.x.guest", 12);
        put_remove(&mut row, "job-2");
        let records = read(&row).unwrap();
        assert_eq!(records.len(), 4);
        assert!(matches!(&records[0], Record::Create { namespace, owner: 7, .. } if namespace == "job-1"));
        let Record::Commit {
            seq: 300, txn: back, ..
        } = &records[1]
        else {
            panic!("{records:?}")
        };
        let mut again = Vec::new();
        put_commit(&mut again, "job-1", 300, back);
        let mut first = Vec::new();
        put_commit(&mut first, "job-1", 300, &txn);
        assert_eq!(again, first);
        assert!(matches!(&records[2], Record::Absorb { key, seq: 12, .. } if key == "job.x.guest"));
        assert!(matches!(&records[3], Record::Remove { namespace } if namespace == "job-2"));
    }

    proptest! {
        #[test]
        fn damaged_rows_are_refused_or_read(mut row: Vec<u8>, cut in 0usize..64) {
            let mut txn = Txn::new();
            txn.put("a", vec![1; 40]);
            put_commit(&mut row, "primary", 1, &txn);
            row.truncate(row.len().saturating_sub(cut));
            let _read = read(&row);
        }
    }
}
