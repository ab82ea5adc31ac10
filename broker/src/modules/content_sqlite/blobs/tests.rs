//! Finding, merging, collecting.

use super::*;
use flux_formats::blobref::{BlobRef, HashType};

fn blob(text: String) -> Blob {
    Blob {
        digest: BlobRef::compute(HashType::Sha1, text.as_bytes())
            .digest()
            .to_vec(),
        bytes: text.into(),
        internal: false,
    }
}

fn db() -> (tempfile::TempDir, Db) {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(&dir.path().join("content.sqlite"), true).unwrap();
    (dir, db)
}

/// Stores blobs `from..to` as a spill does.
fn spill(db: &Db, from: usize, to: usize) {
    let mut entries: Vec<Entry> = (from..to)
        .map(|n| db.append(&blob(format!("blob {n}"))).unwrap())
        .collect();
    entries.sort_unstable();
    let run = db.new_run().unwrap();
    db.index(run, &entries).unwrap();
}

/// Returns how many entries the index has.
fn indexed(db: &Db) -> i64 {
    let alone = db.number("SELECT count(*) FROM blob_index").unwrap();
    let packed = "SELECT IFNULL(SUM(length(entries)), 0) / 16 FROM index_slices";
    alone + db.number(packed).unwrap()
}

#[test]
fn entries_are_packed_and_found_in_their_slices() {
    let entries = [(i64::MIN, 1), (-1, i64::MAX), (0, 0), (i64::MAX, 7)];
    assert_eq!(unpack(&pack(&entries)).collect::<Vec<_>>(), entries);
    assert_eq!(unpack(&[1; 15]).count(), 0);
    let (_dir, db) = db();
    for level in [0, 1, 5, 8, 12] {
        let run = db.add_run(level).unwrap();
        for (number, prefix) in [0, 1, -1, i64::MAX, i64::MIN, 0x1234_5678_9abc_def0]
            .into_iter()
            .enumerate()
        {
            let id = i64::try_from(number).unwrap();
            db.add_slices(run, level, &[(prefix, id)]).unwrap();
            let mut statement = db.prepare(SLICES_OF_PREFIX).unwrap();
            let rows = statement.query_map(slices_of(prefix), |row| {
                let entries: Vec<Entry> = unpack(row.get_ref(1)?.as_blob()?).collect();
                Ok((row.get::<_, i64>(0)?, entries))
            });
            let found: Vec<(i64, Vec<Entry>)> = rows.unwrap().collect::<Result<_, _>>().unwrap();
            let row = slice_row(run, slice_of(prefix, level));
            assert!(
                found
                    .iter()
                    .any(|(known, entries)| *known == row && entries.contains(&(prefix, id))),
                "level {level}, {prefix}: {found:?}"
            );
        }
    }
}

/// Layout 3 had the slices in a table with a key of two columns.
#[test]
fn slices_of_layout_3_are_taken_over() {
    let (dir, db) = db();
    for run in 0..16 {
        spill(&db, run * 10, run * 10 + 10);
    }
    let mut merge = db.merge_due().unwrap().unwrap();
    while !db.merge_slices(&mut merge).unwrap() {}
    spill(&db, 160, 170);
    let before = indexed(&db);
    db.connection
        .execute_batch(
            "CREATE TABLE slices(run INT, slice INT, entries BLOB, PRIMARY KEY(run, slice)) WITHOUT ROWID;
             INSERT INTO slices SELECT id >> 28, id & 268435455, entries FROM index_slices;
             DROP TABLE index_slices; PRAGMA user_version = 3",
        )
        .unwrap();
    drop(db);
    let db = Db::open(&dir.path().join("content.sqlite"), true).unwrap();
    assert_eq!((missing(&db, 170), indexed(&db)), (0, before));
    let old = "SELECT count(*) FROM sqlite_master WHERE name = 'slices'";
    assert_eq!(db.number(old).unwrap(), 0);
}

/// Runs of layout 2 are rows of `blob_index`.
#[test]
fn runs_of_layout_2_are_found_and_merged() {
    let (_dir, db) = db();
    for run in 0..16 {
        let run_id = db.new_run().unwrap();
        for number in run * 10..run * 10 + 10 {
            let (prefix, id) = db.append(&blob(format!("blob {number}"))).unwrap();
            let sql = "INSERT INTO blob_index(run, prefix, id) VALUES(?1, ?2, ?3)";
            db.change(sql, params![run_id, prefix, id]).unwrap();
        }
    }
    assert_eq!(missing(&db, 160), 0);
    let mut merge = db.merge_due().unwrap().unwrap();
    while !db.merge_slices(&mut merge).unwrap() {
        assert_eq!(missing(&db, 160), 0);
    }
    assert_eq!((missing(&db, 160), indexed(&db)), (0, 160));
    assert_eq!(db.number("SELECT count(*) FROM blob_index").unwrap(), 0);
}

fn missing(db: &Db, count: usize) -> usize {
    let there = |n: &usize| {
        let blob = blob(format!("blob {n}"));
        let loaded = db.load(&blob.digest).unwrap();
        loaded.is_some_and(|(bytes, internal)| bytes == blob.bytes && !internal)
    };
    (0..count).filter(|n| !there(n)).count()
}

#[test]
fn runs_are_found_before_during_and_after_a_merge() {
    let (_dir, db) = db();
    // neighbours overlap, as when the same bytes are stored twice
    for run in 0..15 {
        spill(&db, run * 40, run * 40 + 50);
        assert!(db.merge_due().unwrap().is_none() || run == 14);
    }
    db.store(&blob("alone".to_owned())).unwrap();
    let runs = |db: &Db| db.number("SELECT count(*) FROM runs").unwrap();
    let entries = |db: &Db| indexed(db);
    let before = entries(&db);
    // as after a crash in the middle of a merge
    let mut merge = db.merge_due().unwrap().unwrap();
    for _ in 0..7 {
        assert!(!db.merge_slices(&mut merge).unwrap());
    }
    assert_eq!((missing(&db, 610), entries(&db)), (0, before));
    let mut merge = db.merge_due().unwrap().unwrap();
    spill(&db, 610, 620);
    while !db.merge_slices(&mut merge).unwrap() {}
    assert_eq!((missing(&db, 620), entries(&db)), (0, before + 10));
    assert!(db.has(&blob("alone".to_owned()).digest).unwrap());
    assert!(db.merge_due().unwrap().is_none());
    // the loose ones, that which came meanwhile, and the three that merges made
    assert!(runs(&db) <= 5, "{}", runs(&db));
}

#[test]
fn collection_finds_all_tables() {
    let (_dir, mut db) = db();
    let old = blob("of flux-core".to_owned());
    let sql = "INSERT INTO objects(hash, size, object) VALUES(?1, -1, ?2)";
    db.change(sql, params![old.digest, old.bytes.as_ref()]).unwrap();
    spill(&db, 0, 20);
    db.set_epoch(7);
    assert_eq!((db.count().unwrap(), db.count_older(7).unwrap()), (21, 21));
    // an old blob that is stored again stays where it is
    db.store(&old).unwrap();
    db.store(&blob("blob 3".to_owned())).unwrap();
    assert_eq!((db.count().unwrap(), db.count_older(7).unwrap()), (21, 19));
    assert_eq!(
        db.mark(7, &blob("blob 4".to_owned()).digest).unwrap(),
        Some(false)
    );
    assert_eq!(db.mark(7, &[5; 20]).unwrap(), None);
    let (mut cursor, mut deleted) = (0, 0);
    while cursor < db.high_water().unwrap() {
        let sweep = Sweep {
            epoch: 7,
            cursor,
            high_water: db.high_water().unwrap(),
            delete_cap: 4,
            window: 10,
        };
        let (count, next) = db.sweep(&sweep).unwrap();
        (cursor, deleted) = (next, deleted + count);
    }
    assert_eq!((deleted, db.count().unwrap()), (18, 3));
    assert_eq!(indexed(&db), 2);
    for kept in [old, blob("blob 3".to_owned()), blob("blob 4".to_owned())] {
        assert_eq!(db.load(&kept.digest).unwrap(), Some((kept.bytes.to_vec(), false)));
    }
}
