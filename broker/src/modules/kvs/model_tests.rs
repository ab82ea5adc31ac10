//! Property tests: random transactions against a simple model, with spills and thinning in between.

use super::apply::{apply, apply_in_place};
use super::blob;
use super::journal::{self, Record};
use super::lookup::{self, World};
use super::node::{BRANCH_MAX, Dir, Editor, Entry, Fetch, Kind, LEAF_MAX, Node, Stop};
use super::spill::{self, Spilled};
use super::txn::Txn;
use bytes::Bytes;
use flux_formats::blobref::{BlobRef, HashType};
use flux_formats::errno;
use flux_formats::treeobj::TreeObj;
use proptest::prelude::*;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

const HASH: HashType = HashType::Sha1;

/// What the store holds.
#[derive(Default)]
struct Blobs(HashMap<BlobRef, Bytes>);

impl Fetch for Blobs {
    fn node(&self, blobref: &BlobRef) -> Option<Arc<Node>> {
        Some(blob::decode(self.0.get(blobref)?, *blobref).unwrap())
    }
}

impl World for Blobs {
    fn root(&self, _namespace: &str) -> Result<Dir, Stop> {
        Err(Stop::Errno(errno::ENOTSUP))
    }
    fn blob(&self, blobref: &BlobRef) -> Option<Bytes> {
        self.0.get(blobref).cloned()
    }
}

/// The model: a plain tree.
#[derive(Clone, Debug, PartialEq)]
enum Plain {
    Value(Vec<u8>),
    Dir(BTreeMap<String, Plain>),
}

#[derive(Clone, Debug)]
enum Step {
    Put(String, Vec<u8>),
    Append(String, Vec<u8>),
    Unlink(String),
    Mkdir(String),
}

impl Plain {
    fn apply(&mut self, step: &Step) -> Result<(), u32> {
        let (Step::Put(key, _) | Step::Append(key, _) | Step::Unlink(key) | Step::Mkdir(key)) = step;
        let mut names: Vec<&str> = key.split('.').collect();
        let last = names.pop().unwrap();
        let mut here = self;
        for name in names {
            let Plain::Dir(map) = here else { unreachable!() };
            if !matches!(map.get(name), Some(Plain::Dir(_))) {
                if matches!(step, Step::Unlink(_)) {
                    return Ok(());
                }
                map.insert(name.to_owned(), Plain::Dir(BTreeMap::new()));
            }
            here = map.get_mut(name).unwrap();
        }
        let Plain::Dir(map) = here else { unreachable!() };
        match step {
            Step::Put(_, bytes) => drop(map.insert(last.to_owned(), Plain::Value(bytes.clone()))),
            Step::Unlink(_) => drop(map.remove(last)),
            Step::Mkdir(_) => drop(map.insert(last.to_owned(), Plain::Dir(BTreeMap::new()))),
            Step::Append(_, more) => match map
                .entry(last.to_owned())
                .or_insert_with(|| Plain::Value(Vec::new()))
            {
                Plain::Value(bytes) => bytes.extend_from_slice(more),
                Plain::Dir(_) => return Err(errno::EISDIR),
            },
        }
        Ok(())
    }

    fn apply_all(&mut self, steps: &[Step]) -> Result<(), u32> {
        let mut copy = self.clone();
        for step in steps {
            copy.apply(step)?;
        }
        *self = copy;
        Ok(())
    }
}

fn txn(steps: &[Step]) -> Txn {
    let mut txn = Txn::new();
    for step in steps {
        match step {
            Step::Put(key, bytes) => txn.put(key, bytes.clone()),
            Step::Append(key, bytes) => txn.append(key, bytes),
            Step::Unlink(key) => txn.unlink(key),
            Step::Mkdir(key) => txn.mkdir(key),
        };
    }
    txn
}

/// Reads everything, checking order and bounds of every node.
fn plain(dir: &Dir, blobs: &Blobs) -> Plain {
    check_nodes(&dir.node(blobs).unwrap(), blobs, true);
    let mut map = BTreeMap::new();
    let entries = lookup::list(dir, blobs).unwrap();
    assert!(entries.windows(2).all(|pair| pair[0].0 < pair[1].0));
    for (name, entry) in entries {
        assert!(dir.get(&name, blobs).unwrap().is_some());
        let plain = match entry {
            Entry::Dir(sub) => plain(&sub, blobs),
            Entry::Value(value) => {
                let bytes = lookup::read(&value, 0, HASH, blobs).unwrap();
                assert!(value.size().is_none_or(|size| size == bytes.len()));
                Plain::Value(bytes.to_vec())
            }
            Entry::Link(_) => unreachable!(),
        };
        map.insert(name.to_string(), plain);
    }
    Plain::Dir(map)
}

fn check_nodes(node: &Node, blobs: &Blobs, top: bool) {
    match &node.kind {
        Kind::Whole(entries) => assert!(top && entries.len() <= LEAF_MAX),
        Kind::Leaf(entries) => assert!(!top && !entries.is_empty() && entries.len() <= LEAF_MAX),
        Kind::Branch(children) => {
            assert!(!children.is_empty() && children.len() <= BRANCH_MAX);
            children
                .iter()
                .for_each(|(_, child)| check_nodes(&child.node(blobs).unwrap(), blobs, false));
        }
    }
}

fn key() -> impl Strategy<Value = String> {
    prop_oneof![
        "[abc](\\.[abc]){0,3}",
        (0..400u32).prop_map(|n| format!("d.{n:03}")),
        (0..400u32).prop_map(|n| format!("d.{:03}.x", n * 7 % 400)),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..90);
    prop_oneof![
        6 => (key(), bytes()).prop_map(|(key, bytes)| Step::Put(key, bytes)),
        4 => (key(), bytes()).prop_map(|(key, bytes)| Step::Append(key, bytes)),
        3 => key().prop_map(Step::Unlink),
        1 => key().prop_map(Step::Mkdir),
    ]
}

/// Ascending puts, so that directories get large.
fn fill() -> impl Strategy<Value = Vec<Step>> {
    (0..300u32, 1..200u32).prop_map(|(from, count)| {
        (from..from + count)
            .map(|n| Step::Put(format!("d.{:03}", n % 400), n.to_be_bytes().to_vec()))
            .collect()
    })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop_oneof![3 => prop::collection::vec(step(), 1..12), 1 => fill()]
}

fn editor(blobs: &Blobs, epoch: u32) -> Editor<'_> {
    Editor { fetch: blobs, epoch }
}

fn store(root: &Dir, blobs: &mut Blobs) {
    let mut spilled = Spilled::default();
    let put = &mut |blobref, bytes: Bytes, _| {
        assert_eq!(BlobRef::compute(HASH, &bytes), blobref);
        blobs.0.insert(blobref, bytes);
        Ok::<(), ()>(())
    };
    spill::collect(root, HASH, &mut spilled, put).unwrap();
    spilled.mark();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    // Spills and thinning never change what is seen; nor does loading everything from the store.
    #[test]
    fn follows_the_model(txns in prop::collection::vec((steps(), 0..8u8), 1..24)) {
        let (mut root, mut blobs, mut model) = (Dir::empty(1), Blobs::default(), Plain::Dir(BTreeMap::new()));
        let mut epoch = 1;
        for (steps, then) in txns {
            let expected = model.apply_all(&steps);
            let mut in_place = root.clone();
            let plain_sailing = apply_in_place(&mut in_place, "primary", &txn(&steps), editor(&blobs, epoch));
            match apply(&root, "primary", &txn(&steps), editor(&blobs, epoch)) {
                Ok(new) => {
                    prop_assert!(expected.is_ok());
                    if plain_sailing {
                        prop_assert_eq!(in_place.blobref(HASH), new.blobref(HASH));
                    }
                    root = new;
                }
                Err(stop) => {
                    prop_assert!(!plain_sailing);
                    prop_assert_eq!(stop, Stop::Errno(expected.unwrap_err()));
                }
            }
            match then {
                0 => {
                    store(&root, &mut blobs);
                    spill::thin(&mut root, epoch, HASH, &mut Vec::new());
                    epoch += 1;
                }
                1 => {
                    store(&root, &mut blobs);
                    epoch += 1;
                    spill::thin(&mut root, epoch, HASH, &mut Vec::new());
                }
                2 => {
                    store(&root, &mut blobs);
                    root = Dir::There(root.blobref(HASH));
                }
                _ => {}
            }
            prop_assert_eq!(plain(&root, &blobs), model.clone());
        }
        store(&root, &mut blobs);
        let again = Dir::There(root.blobref(HASH));
        prop_assert_eq!(plain(&again, &blobs), model);
    }

    // Transactions applied one after the other and their concatenation give the same root, if none fails.
    #[test]
    fn merged_equals_sequential(txns in prop::collection::vec(steps(), 1..8)) {
        let blobs = Blobs::default();
        let (mut one_by_one, mut all) = (Dir::empty(1), Txn::new());
        for steps in &txns {
            if let Ok(new) = apply(&one_by_one, "primary", &txn(steps), editor(&blobs, 1)) {
                one_by_one = new;
                all.merge(txn(steps));
            }
        }
        let merged = apply(&Dir::empty(1), "primary", &all, editor(&blobs, 1)).unwrap();
        prop_assert_eq!(merged.blobref(HASH), one_by_one.blobref(HASH));
    }

    // A spill at any time and the journal since give the root back.
    #[test]
    fn replay_gives_the_root(before in prop::collection::vec(steps(), 0..6), after in prop::collection::vec(steps(), 0..6)) {
        let mut blobs = Blobs::default();
        let mut root = Dir::empty(1);
        for steps in &before {
            root = apply(&root, "primary", &txn(steps), editor(&blobs, 1)).unwrap_or(root);
        }
        store(&root, &mut blobs);
        let mut replayed = Dir::There(root.blobref(HASH));
        let mut row = Vec::new();
        for (seq, steps) in (0u64..).zip(&after) {
            if let Ok(new) = apply(&root, "primary", &txn(steps), editor(&blobs, 2)) {
                root = new;
                journal::put_commit(&mut row, "primary", seq, &txn(steps));
            }
        }
        for record in journal::read(&row).unwrap() {
            let Record::Commit { txn, .. } = record else { unreachable!() };
            replayed = apply(&replayed, "primary", &txn, editor(&blobs, 9)).unwrap();
        }
        prop_assert_eq!(plain(&replayed, &blobs), plain(&root, &blobs));
    }

    #[test]
    fn damaged_nodes_do_not_panic(mut bytes: Vec<u8>, leaf: bool) {
        let mut blob = b"\0flux-kvs-node\x01".to_vec();
        blob.push(u8::from(leaf));
        blob.append(&mut bytes);
        let _decoded = blob::decode(&blob, BlobRef::compute(HASH, &blob));
    }
}

#[test]
fn small_directories_are_what_flux_core_writes() {
    let mut txn = Txn::new();
    txn.put("foo", "1")
        .put("a.b", "x")
        .symlink("lnk", None, "foo")
        .put("long", vec![b'y'; 55]);
    let blobs = Blobs::default();
    let root = apply(&Dir::empty(1), "primary", &txn, editor(&blobs, 1)).unwrap();
    let sub = TreeObj::decode(br#"{"data":{"b":{"data":"eA==","type":"val","ver":1}},"type":"dir","ver":1}"#)
        .unwrap();
    let mut dir = flux_formats::treeobj::Dir::new();
    dir.insert("foo", TreeObj::Val(Bytes::from_static(b"1"))).unwrap();
    dir.insert("a", TreeObj::DirRef(sub.blobref(HASH))).unwrap();
    dir.insert("lnk", TreeObj::symlink(None, "foo")).unwrap();
    dir.insert("long", TreeObj::ValRef(vec![BlobRef::compute(HASH, &[b'y'; 55])]))
        .unwrap();
    assert_eq!(root.blobref(HASH), TreeObj::Dir(dir).blobref(HASH));
}

#[test]
fn a_large_directory_changes_little() {
    let (mut root, mut blobs) = (Dir::empty(1), Blobs::default());
    let mut put = Txn::new();
    for n in 0..65_536 {
        put.mkdir(&format!("job.{n:04x}"));
    }
    root = apply(&root, "primary", &put, editor(&blobs, 1)).unwrap();
    store(&root, &mut blobs);
    let count = blobs.0.len();
    let bytes = |blobs: &Blobs| blobs.0.values().map(Bytes::len).sum::<usize>();
    let before = bytes(&blobs);
    let mut one = Txn::new();
    one.put("job.8000.R", "{}");
    root = apply(
        &Dir::There(root.blobref(HASH)),
        "primary",
        &one,
        editor(&blobs, 2),
    )
    .unwrap();
    store(&root, &mut blobs);
    assert!(blobs.0.len() - count <= 7, "{}", blobs.0.len() - count);
    assert!(bytes(&blobs) - before < 12_000, "{}", bytes(&blobs) - before);
    // ascending names fill their leaves
    assert!(
        count < 65_536 / LEAF_MAX + 65_536 / LEAF_MAX / BRANCH_MAX + 80,
        "{count}"
    );
    let mut all = Vec::new();
    let mut reads = 0;
    let dir = root.get("job", &blobs).unwrap().unwrap();
    let Entry::Dir(dir) = dir else { panic!() };
    let blobref = dir.blobref(HASH);
    let mut read = |blobref: &BlobRef| {
        reads += 1;
        Ok(blobs.0.get(blobref).map(|bytes| bytes.to_vec()))
    };
    all.extend(blob::explain(&blobs.0[&blobref], blobref, &mut read).unwrap());
    assert_eq!(TreeObj::decode_dir(&all).unwrap().len(), 65_536);
    assert!(reads > 2000);
}
