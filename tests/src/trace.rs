//! Editing traces: what somebody really typed, transaction by transaction.
//!
//! Format of the public editing-traces collection, gzipped JSON. A sequential trace is one typist's; a concurrent one
//! names each transaction's agent and parents. Positions and lengths count Unicode code points.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::path::Path;

use driftlog_core::rich::Splice;
use serde::Deserialize;

/// A trace.
#[derive(Debug, Deserialize)]
pub struct Trace {
    /// `sequential` (also when absent) or `concurrent`.
    #[serde(default)]
    kind: Option<String>,
    /// The text before the first transaction.
    #[serde(default, rename = "startContent")]
    pub start: String,
    /// The text after the last.
    #[serde(rename = "endContent")]
    pub end: String,
    #[serde(default, rename = "numAgents")]
    agents: Option<usize>,
    /// What was typed, causally ordered.
    #[serde(rename = "txns")]
    pub transactions: Vec<Transaction>,
}

/// What was typed at once.
#[derive(Debug, Deserialize)]
pub struct Transaction {
    #[serde(default)]
    parents: Vec<usize>,
    /// Who typed it.
    #[serde(default)]
    pub agent: usize,
    /// Position, deleted length, inserted text; each on what the one before left.
    pub patches: Vec<(usize, usize, String)>,
}

/// Why a trace cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TraceError {
    /// Name an existing file.
    #[error("cannot read the trace: {0}")]
    Io(#[from] std::io::Error),
    /// The file is not a gzipped editing trace.
    #[error("this is no editing trace: {0}")]
    Json(#[from] serde_json::Error),
    /// The file names agents or parents that are not there.
    #[error("transaction {0} names an agent or a parent that does not exist before it")]
    Graph(usize),
}

impl Trace {
    /// Reads a `.json.gz` file.
    ///
    /// # Errors
    /// [`TraceError`].
    pub fn read(path: &Path) -> Result<Self, TraceError> {
        let mut json = String::new();
        flate2::read::GzDecoder::new(std::fs::File::open(path)?).read_to_string(&mut json)?;
        let mut trace: Self = serde_json::from_str(&json)?;
        if !trace.is_concurrent() {
            for (at, transaction) in trace.transactions.iter_mut().enumerate().skip(1) {
                transaction.parents = vec![at - 1];
            }
        }
        let agents = trace.agents();
        let broken = |(at, transaction): &(usize, &Transaction)| {
            transaction.agent >= agents || transaction.parents.iter().any(|parent| parent >= at)
        };
        match trace.transactions.iter().enumerate().find(broken) {
            Some((at, _)) => Err(TraceError::Graph(at)),
            None => Ok(trace),
        }
    }

    /// Whether several agents typed at once.
    pub fn is_concurrent(&self) -> bool {
        self.kind.as_deref() == Some("concurrent")
    }

    /// How many typed.
    pub fn agents(&self) -> usize {
        self.agents.unwrap_or(1)
    }

    /// How many transactions of each agent each transaction's typist had seen, its own included.
    ///
    /// None if some agent had not seen its own earlier work: then it is not one typist.
    pub fn seen(&self) -> Option<Vec<Vec<usize>>> {
        let mut seen: Vec<Vec<usize>> = Vec::with_capacity(self.transactions.len());
        let mut typed = vec![0; self.agents()];
        for transaction in &self.transactions {
            let mut counts = vec![0; self.agents()];
            for parent in &transaction.parents {
                counts.iter_mut().zip(&seen[*parent]).for_each(|(count, of_parent)| *count = (*count).max(*of_parent));
            }
            if counts[transaction.agent] != typed[transaction.agent] {
                return None;
            }
            typed[transaction.agent] += 1;
            counts[transaction.agent] += 1;
            seen.push(counts);
        }
        Some(seen)
    }

    /// An order in which each transaction's typist could have seen exactly a prefix of the others' work: what it had
    /// seen before what it had not. None if there is no such order.
    pub fn offset_order(&self, seen: &[Vec<usize>]) -> Option<Vec<usize>> {
        let mut of_agent = vec![Vec::new(); self.agents()];
        for (at, transaction) in self.transactions.iter().enumerate() {
            of_agent[transaction.agent].push(at);
        }
        let mut after: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
        for (at, transaction) in self.transactions.iter().enumerate() {
            for parent in &transaction.parents {
                after.entry(*parent).or_default().insert(at);
            }
            let others = (0..self.agents()).filter(|agent| *agent != transaction.agent);
            let last_seen =
                others.clone().filter_map(|agent| seen[at][agent].checked_sub(1).map(|n| of_agent[agent][n]));
            let unseen: Vec<_> = others.filter_map(|agent| of_agent[agent].get(seen[at][agent]).copied()).collect();
            for last in last_seen {
                let entry = after.entry(last).or_default();
                entry.extend(
                    unseen.iter().filter(|first| self.transactions[**first].agent != self.transactions[last].agent),
                );
            }
        }
        for transactions in &of_agent {
            for pair in transactions.windows(2) {
                after.entry(pair[0]).or_default().insert(pair[1]);
            }
        }
        sorted(self.transactions.len(), &after)
    }
}

/// Topological order, lowest index first; none if there is a cycle.
fn sorted(count: usize, after: &BTreeMap<usize, BTreeSet<usize>>) -> Option<Vec<usize>> {
    let mut waits = vec![0; count];
    after.values().flatten().for_each(|at| waits[*at] += 1);
    let mut free: BTreeSet<usize> = (0..count).filter(|at| waits[*at] == 0).collect();
    let mut order = Vec::with_capacity(count);
    while let Some(at) = free.pop_first() {
        order.push(at);
        for next in after.get(&at).into_iter().flatten() {
            waits[*next] -= 1;
            if waits[*next] == 0 {
                free.insert(*next);
            }
        }
    }
    (order.len() == count).then_some(order)
}

/// Turns patches in code points into splices in UTF-16 code units, against the text they are made on.
pub fn splices(text: &str, patches: &[(usize, usize, String)]) -> Vec<Splice> {
    let mut chars: Option<Vec<char>> = None;
    if !text.is_ascii() || patches.iter().any(|(_, _, insert)| !insert.is_ascii()) {
        chars = Some(text.chars().collect());
    }
    let splice = |(at, delete, insert): &(usize, usize, String)| {
        let Some(chars) = &mut chars else { return Splice { at: *at, delete: *delete, insert: insert.clone() } };
        let at = (*at).min(chars.len());
        let delete = (*delete).min(chars.len() - at);
        let units = |chars: &[char]| chars.iter().map(|c| c.len_utf16()).sum();
        let splice = Splice { at: units(&chars[..at]), delete: units(&chars[at..at + delete]), insert: insert.clone() };
        chars.splice(at..at + delete, insert.chars());
        splice
    };
    patches.iter().map(splice).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace(agents: usize, transactions: &[(usize, &[usize])]) -> Trace {
        let transactions = transactions
            .iter()
            .map(|(agent, parents)| Transaction { agent: *agent, parents: parents.to_vec(), patches: vec![] })
            .collect();
        let (start, end) = (String::new(), String::new());
        Trace { kind: Some("concurrent".into()), start, end, agents: Some(agents), transactions }
    }

    #[test]
    fn what_was_seen_comes_before_what_was_not() {
        let trace = trace(2, &[(0, &[]), (1, &[0]), (0, &[0]), (1, &[1]), (0, &[2, 3])]);
        let seen = trace.seen().expect("each agent saw its own work");
        assert_eq!(seen[4], [3, 2]);
        let order = trace.offset_order(&seen).expect("two agents always have one");
        assert_eq!(order.len(), 5);
    }

    #[test]
    fn three_agents_may_have_no_order() {
        // 2 saw 0's work and not 1's, 3 the other way round.
        let trace = trace(4, &[(0, &[]), (1, &[]), (2, &[0]), (3, &[1])]);
        let seen = trace.seen().expect("each agent saw its own work");
        assert_eq!(trace.offset_order(&seen), None);
    }

    #[test]
    fn code_points_become_utf16_units() {
        let splices = splices("a😀b", &[(2, 1, "é".into()), (0, 2, String::new())]);
        let flat: Vec<_> = splices.iter().map(|splice| (splice.at, splice.delete)).collect();
        assert_eq!(flat, [(3, 1), (0, 3)]);
    }
}
