//! Does R read and write like flux-core's, and does set algebra agree with a model that looks at each resource?

use super::*;
use crate::resource_set::algebra::RerankError;
use proptest::prelude::*;
use std::collections::BTreeSet;

fn uniform(ranks: &str, hosts: &str, cores: &str, gpus: &str) -> ResourceSet {
    let children = Children {
        core: cores.parse().unwrap(),
        gpu: gpus.parse().unwrap(),
    };
    ResourceSet::uniform(ranks.parse().unwrap(), hosts.parse().unwrap(), children).unwrap()
}

fn spaced(json: &str) -> String {
    json.replace("\":", "\": ").replace(",\"", ", \"")
}

#[test]
fn golden() {
    let basic = uniform("0-3", "node[0-3]", "0-1", "");
    let golden = r#"{"version": 1, "execution": {"R_lite": [{"rank": "0-3", "children": {"core": "0-1"}}], "starttime": 0.0, "expiration": 0.0, "nodelist": ["node[0-3]"]}}"#;
    assert_eq!(spaced(&basic.encode()), golden);
    assert_eq!(ResourceSet::decode(golden.as_bytes()).unwrap(), basic);
    let gpu = r#"{"version": 1, "execution": {"R_lite": [{"rank": "0", "children": {"gpu": "0-1", "core": "0-3"}}], "starttime": 0.0, "expiration": 0.0, "nodelist": ["foo"]}}"#;
    assert_eq!(
        spaced(&ResourceSet::decode(gpu.as_bytes()).unwrap().encode()),
        gpu
    );
    let props = r#"{"version": 1, "execution": {"R_lite": [{"rank": "0-3", "children": {"core": "0-1"}}], "starttime": 0.0, "expiration": 0.0, "nodelist": ["node[0-3]"], "properties": {"small": "2-3", "big": "0-1"}}}"#;
    let with_props = ResourceSet::decode(props.as_bytes()).unwrap();
    assert_eq!(spaced(&with_props.encode()), props);
    let job = r#"{"version": 1, "execution": {"R_lite": [{"rank": "0-1", "children": {"core": "0-1"}}], "starttime": 1795240138.5116405, "expiration": 0.0, "nslots": 4, "nodelist": ["vm,vm"]}}"#;
    assert_eq!(
        spaced(&ResourceSet::decode(job.as_bytes()).unwrap().encode()),
        job
    );
    // append of node[0-1] and node[2-3]; diff of ranks 0-1; decode --include 1-2, --short, --count
    let mut appended = uniform("0-1", "node[0-1]", "0-1", "");
    appended.append(&uniform("2-3", "node[2-3]", "0-1", "")).unwrap();
    assert_eq!(appended, basic);
    assert_eq!(
        basic.difference(&uniform("0-1", "node[0-1]", "0-1", "")),
        uniform("2-3", "node[2-3]", "0-1", "")
    );
    assert_eq!(
        basic.copy_ranks(&"1-2".parse().unwrap()),
        uniform("1-2", "node[1-2]", "0-1", "")
    );
    assert_eq!(basic.to_string(), "rank[0-3]/core[0-1]");
    assert_eq!(basic.count(ResourceKind::Core), 8);
    assert_eq!(
        uniform("0", "a", "0-3", "0-1").to_string(),
        "rank0/core[0-3],gpu[0-1]"
    );
}

#[test]
fn rfc_example_and_queries() {
    let text = r#"{"version":1,"execution":{"R_lite":[{"rank":"19-22","children":{"core":"0-47","gpu":"0-7"}}],
        "nodelist":["node[186-189]"],"nslots":32,"starttime":1676560542,"expiration":1676562342},
        "scheduling":{"writer":"x:"}}"#;
    let set = ResourceSet::decode(text.as_bytes()).unwrap();
    assert_eq!(set.count(ResourceKind::Node), 4);
    assert_eq!(set.count(ResourceKind::Core), 192);
    assert_eq!(set.count(ResourceKind::Gpu), 32);
    assert_eq!((set.nslots, set.expiration), (32, 1_676_562_342.0));
    assert_eq!(set.host(20).as_deref(), Some("node187"));
    assert_eq!(set.host(0), None);
    assert_eq!(
        set.ranks_of_hosts(&"node[189,186]".parse().unwrap())
            .unwrap()
            .to_string(),
        "19,22"
    );
    assert_eq!(
        set.hosts_of(&"20-21".parse().unwrap()).to_string(),
        "node[187-188]"
    );
    assert!(set.children(22).is_some() && set.children(23).is_none());
    assert_eq!(ResourceSet::from_value(&set.to_value()).unwrap(), set);
    let remapped = set.remap();
    assert_eq!(remapped.ranks().to_string(), "0-3");
    assert_eq!(remapped.nodelist().to_string(), "node[186-189]");
    assert_eq!(remapped.expiration, set.expiration);
    let part = uniform("3,7", "a,b", "4-5", "1");
    assert_eq!(part.remap().to_string(), "rank[0-1]/core[0-1],gpu0");
    assert_eq!(part.compact_ranks().to_string(), "rank[0-1]/core[4-5],gpu1");
}

#[test]
fn reranks_by_host() {
    let mut set = uniform("0-3", "n[0-3]", "0-1", "");
    set.add_property("big", &"0-1".parse().unwrap()).unwrap();
    let reranked = set.rerank(&"n[3,2,1,0]".parse().unwrap()).unwrap();
    assert_eq!(reranked.host(0).as_deref(), Some("n3"));
    assert_eq!(reranked.property_ranks("big").unwrap().to_string(), "2-3");
    assert_eq!(
        set.rerank(&"n[0-2]".parse().unwrap()),
        Err(RerankError::Count { hosts: 3, nodes: 4 })
    );
    assert_eq!(
        set.rerank(&"n[0-2,4]".parse().unwrap()),
        Err(RerankError::Unknown)
    );
    let same_host = uniform("0-1", "vm,vm", "0", "");
    assert_eq!(same_host.rerank(&"vm,vm".parse().unwrap()).unwrap(), same_host);
}

#[test]
fn properties() {
    let mut set = uniform("0-3", "n[0-3]", "0-1", "");
    set.add_property("a", &"0".parse().unwrap()).unwrap();
    set.add_property("a", &"2".parse().unwrap()).unwrap();
    assert!(set.has_property(2, "a") && !set.has_property(1, "a") && !set.has_property(0, "b"));
    assert!(matches!(
        set.add_property("a|b", &IdSet::new()),
        Err(ResourceSetError::PropertyName(_))
    ));
    assert!(matches!(
        set.add_property("b", &"4".parse().unwrap()),
        Err(ResourceSetError::PropertyRanks { .. })
    ));
    assert_eq!(
        set.copy_ranks(&"2".parse().unwrap())
            .property_ranks("a")
            .unwrap()
            .to_string(),
        "2"
    );
    set.remove_property("a", &"0,2".parse().unwrap());
    assert_eq!(set.properties().count(), 0);
}

#[test]
fn refused() {
    for bad in [
        "",
        "{}",
        r#"{"version":2,"execution":{"R_lite":[]}}"#,
        r#"{"version":1,"execution":{"R_lite":[{"rank":"x","children":{"core":"0"}}]}}"#,
        r#"{"version":1,"execution":{"R_lite":[{"rank":"","children":{"core":"0"}}]}}"#,
        r#"{"version":1,"execution":{"R_lite":[{"rank":"0"}]}}"#,
        r#"{"version":1,"execution":{"R_lite":[{"rank":"0-1","children":{"core":"0"}}],"nodelist":["a"]}}"#,
        r#"{"version":1,"execution":{"R_lite":[{"rank":"0","children":{"core":"0"}}],"properties":{"a!":"0"}}}"#,
        r#"{"version":1,"execution":{"R_lite":[{"rank":"0","children":{"core":"0"}}],"properties":{"a":"1"}}}"#,
    ] {
        assert!(ResourceSet::decode(bad.as_bytes()).is_err(), "{bad}");
    }
    let huge = r#"{"version":1,"execution":{"R_lite":[{"rank":"0-4294967295","children":{"core":"0-4294967295"}}]}}"#;
    assert_eq!(
        ResourceSet::decode(huge.as_bytes())
            .unwrap()
            .count(ResourceKind::Core),
        u64::MAX
    );
}

type Model = BTreeSet<(u32, bool, u32)>;

fn model(set: &ResourceSet) -> Model {
    let mut out = Model::new();
    for group in set.groups() {
        for rank in &group.ranks {
            out.extend(group.children.core.iter().map(|id| (rank, false, id)));
            out.extend(group.children.gpu.iter().map(|id| (rank, true, id)));
        }
    }
    out
}

fn sets() -> impl Strategy<Value = ResourceSet> {
    let ids =
        || prop::collection::btree_set(0u32..6, 0..5).prop_map(|ids| ids.into_iter().collect::<IdSet>());
    let ranks =
        prop::collection::btree_set(0u32..12, 1..6).prop_map(|ids| ids.into_iter().collect::<IdSet>());
    let core = prop::collection::btree_set(0u32..6, 1..5).prop_map(|ids| ids.into_iter().collect::<IdSet>());
    prop::collection::vec((ranks, core, ids()), 0..5).prop_map(|groups| {
        let groups: Vec<Group> = groups
            .into_iter()
            .map(|(ranks, core, gpu)| Group {
                ranks,
                children: Children { core, gpu },
            })
            .collect();
        let ranks = algebra::all_ranks(&groups);
        let mut hosts = Hostlist::new();
        ranks
            .iter()
            .for_each(|rank| hosts.push(&format!("n{rank}")).unwrap());
        ResourceSet::from_groups(groups, hosts).unwrap()
    })
}

fn check(set: &ResourceSet) {
    assert_eq!(&ResourceSet::decode(set.encode().as_bytes()).unwrap(), set);
    for rank in &set.ranks() {
        assert_eq!(set.host(rank), Some(format!("n{rank}")));
    }
}

proptest! {
    #[test]
    fn algebra(a in sets(), b in sets()) {
        let (x, y) = (model(&a), model(&b));
        for (set, want) in [
            (a.union(&b), &x | &y),
            (a.intersection(&b), &x & &y),
            (a.difference(&b), &x - &y),
        ] {
            prop_assert_eq!(model(&set), want);
            check(&set);
        }
        prop_assert_eq!(a.is_subset(&b), x.is_subset(&y));
        let mut sum = a.clone();
        prop_assert_eq!(sum.append(&b).is_ok(), x.is_disjoint(&y));
        let odd: IdSet = (1..12).step_by(2).collect();
        let copied = a.copy_ranks(&odd);
        check(&copied);
        prop_assert_eq!(model(&copied), x.iter().copied().filter(|r| r.0 % 2 == 1).collect::<Model>());
        prop_assert_eq!(a.compact_ranks().count(ResourceKind::Core), a.count(ResourceKind::Core));
        prop_assert_eq!(a.remap().count(ResourceKind::Gpu), a.count(ResourceKind::Gpu));
    }
}
