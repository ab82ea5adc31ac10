//! How does the enclosing instance learn of this one? Its URI becomes a memo of the job, and the nodes that it needs.

use super::service::Lifecycle;
use crate::parent;
use crate::service::Cx;
use flux_formats::idset::IdSet;
use flux_formats::taskmap::Taskmap;

impl Lifecycle {
    /// Tells the enclosing instance, when there is one, that this one is there.
    pub(super) fn announce(&mut self, cx: &mut Cx<'_>) {
        let Some((uri, id)) = parent::location(&cx.attrs).filter(|_| cx.rank() == 0) else {
            return;
        };
        let attr = |name: &str| cx.attrs.get(name).unwrap_or("").to_owned();
        let local = attr("local-uri");
        let own = format!(
            "ssh://{}{}",
            attr("hostname"),
            local.strip_prefix("local://").unwrap_or("")
        );
        let critical = nodes_of(&attr("broker.critical-ranks"), &attr("broker.mapping"));
        let told = parent::announce(uri, id, own, critical);
        cx.spawn(told, |_: &mut Lifecycle, cx, result| {
            if let Err(err) = result {
                cx.log(
                    3,
                    "broker",
                    &format!("telling the enclosing instance of this one: {err}"),
                );
            }
        });
    }
}

/// Returns the nodes of the job on which some brokers run; the brokers themselves when there is one on each node.
fn nodes_of(brokers: &str, mapping: &str) -> String {
    let (Ok(ranks), Ok(map)) = (brokers.parse::<IdSet>(), mapping.parse::<Taskmap>()) else {
        return brokers.to_owned();
    };
    let nodes: IdSet = ranks.iter().filter_map(|rank| map.nodeid(rank)).collect();
    nodes.to_string()
}

#[cfg(test)]
mod tests {
    use super::nodes_of;

    #[test]
    fn brokers_and_nodes() {
        assert_eq!(nodes_of("0-1", ""), "0-1");
        assert_eq!(nodes_of("0-1", "[[0,4,1,1]]"), "0-1");
        assert_eq!(nodes_of("0-1", "[[0,2,2,1]]"), "0");
        assert_eq!(nodes_of("0,2", "[[0,2,2,1]]"), "0-1");
    }
}
