//! Rules from a file: the policy of the binary, for what can be said without code.
//!
//! ```json
//! { "rules": [
//!   { "log": "board/*", "collection": "todos", "field": "title", "chars_max": 120, "reason": "a title has at most 120 characters" },
//!   { "log": "board/*", "collection": "todos", "records_max": 500, "reason": "a board has at most 500 todos" },
//!   { "log": "board/*", "collection": "head", "users": ["alice"], "reason": "only Alice renames boards" }
//! ] }
//! ```
//!
//! Each rule has one limit: `chars_max` (text given to a field: a register's, a set's element, a rich field's first
//! content) refuses `not-valid`, `records_max` (records of a collection) `quota-exceeded`, `users` (who alone may write
//! a collection or a field) `not-allowed`. A rule goes by an entry's ops; the first that is broken counts.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use driftlog_core::id::{LogName, Name};
use driftlog_core::op::{Edit, FieldOp, Op};
use driftlog_core::protocol::Code;
use driftlog_core::sequencer::{Case, Policy, Ruling};
use driftlog_core::session::server::{Grant, Grants};
use driftlog_core::value::Value;
use serde::Deserialize;

/// A policy that was read from a file.
#[derive(Debug, Clone)]
pub struct Rules(Vec<Rule>);

/// The file holds no rules.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RulesError {
    /// Name another file.
    #[error("the rules file {path}: {error}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// Mend the file.
    #[error("the rules do not read: {0}")]
    Syntax(#[from] serde_json::Error),
    /// Give the rule exactly one limit.
    #[error("rule {0} needs exactly one of chars_max, records_max and users; chars_max needs a field")]
    Limit(usize),
}

#[derive(Debug, Clone)]
struct Rule {
    logs: Grants,
    collection: Name,
    field: Option<Name>,
    limit: Limit,
    reason: String,
}

#[derive(Debug, Clone)]
enum Limit {
    Chars(usize),
    Records(usize),
    Users(BTreeSet<String>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RulesFile {
    rules: Vec<WrittenRule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenRule {
    log: String,
    collection: Name,
    field: Option<Name>,
    chars_max: Option<usize>,
    records_max: Option<usize>,
    users: Option<BTreeSet<String>>,
    reason: String,
}

impl Rules {
    /// Reads a rules file.
    ///
    /// # Errors
    /// [`RulesError`].
    pub fn read(path: &Path) -> Result<Self, RulesError> {
        let text = std::fs::read_to_string(path);
        Self::parse(&text.map_err(|error| RulesError::File { path: path.to_owned(), error })?)
    }

    /// Reads rules from their JSON.
    ///
    /// # Errors
    /// [`RulesError::Syntax`], [`RulesError::Limit`].
    pub fn parse(json: &str) -> Result<Self, RulesError> {
        let file: RulesFile = serde_json::from_str(json)?;
        let rules = file.rules.into_iter().enumerate();
        Ok(Self(rules.map(|(at, rule)| rule.checked().ok_or(RulesError::Limit(at + 1))).collect::<Result<_, _>>()?))
    }
}

impl WrittenRule {
    fn checked(self) -> Option<Rule> {
        let Self { log, collection, field, chars_max, records_max, users, reason } = self;
        let limit = match (chars_max, records_max, users) {
            (Some(max), None, None) if field.is_some() => Limit::Chars(max),
            (None, Some(max), None) if field.is_none() => Limit::Records(max),
            (None, None, Some(users)) => Limit::Users(users),
            _ => return None,
        };
        let logs = Grants(vec![Grant { pattern: log, read: true, append: true }]);
        Some(Rule { logs, collection, field, limit, reason })
    }
}

impl Policy for Rules {
    fn rule(&self, case: &Case<'_>) -> Ruling {
        let broken = self.0.iter().find(|rule| rule.covers(case.log) && rule.is_broken(case));
        broken.map_or(Ruling::Allow, |rule| Ruling::Refuse { code: rule.limit.code(), reason: rule.reason.clone() })
    }
}

impl Limit {
    fn code(&self) -> Code {
        match self {
            Self::Chars(_) => Code::NotValid,
            Self::Records(_) => Code::QuotaExceeded,
            Self::Users(_) => Code::EntryForbidden,
        }
    }
}

impl Rule {
    fn covers(&self, log: &LogName) -> bool {
        self.logs.rights(log).1
    }

    fn is_broken(&self, case: &Case<'_>) -> bool {
        let mut ops = case.ops().iter().filter(|op| op.target().is_some_and(|(name, _)| *name == self.collection));
        match &self.limit {
            Limit::Chars(max) => ops.flat_map(|op| self.writes(op)).any(|op| chars(op) > *max),
            Limit::Users(users) if users.contains(case.user.as_str()) => false,
            Limit::Users(_) => ops.any(|op| self.field.is_none() || self.writes(op).next().is_some()),
            Limit::Records(max) => {
                let there = case.before.collection(&self.collection);
                let new: BTreeSet<_> = ops
                    .filter_map(|op| match op {
                        Op::Insert(insert) => Some(&insert.record),
                        _ => None,
                    })
                    .filter(|record| there.is_none_or(|records| !records.contains_key(record)))
                    .collect();
                !new.is_empty() && there.map_or(0, |records| records.len()) + new.len() > *max
            }
        }
    }

    /// What an op does to the rule's field.
    fn writes<'a>(&self, op: &'a Op) -> impl Iterator<Item = &'a FieldOp> + use<'a, '_> {
        op.field_ops().filter(|(field, _)| Some(*field) == self.field.as_ref()).map(|(_, op)| op)
    }
}

/// The longest text that an op gives to its field.
fn chars(op: &FieldOp) -> usize {
    let text = |value: &Value| match value {
        Value::Text(text) => text.chars().count(),
        _ => 0,
    };
    match op {
        FieldOp::Set(value) => text(value),
        FieldOp::Add(elements) => elements.iter().map(text).max().unwrap_or(0),
        FieldOp::Edit(Edit::InitialText(text)) => text.chars().count(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use driftlog_core::entry::{Body, Entry, Header, Logged, Salt};
    use driftlog_core::id::{ActorId, Base, EpochId, LogId, Offset, RecordId, RunId, Seq, UserId};
    use driftlog_core::op::{Delete, DeletePolicy, Insert, Update};
    use driftlog_core::state::State;
    use driftlog_core::time::Time;

    const RULES: &str = r#"{ "rules": [
        { "log": "board/*", "collection": "todos", "field": "title", "chars_max": 5, "reason": "short titles" },
        { "log": "board/*", "collection": "todos", "records_max": 2, "reason": "two todos" },
        { "log": "board/*", "collection": "head", "users": ["alice"], "reason": "only Alice" },
        { "log": "board/*", "collection": "todos", "field": "price", "users": ["alice"], "reason": "only Alice prices" }
    ] }"#;

    fn name(text: &str) -> Name {
        Name::new(text).expect("a name")
    }

    fn record(text: &str) -> RecordId {
        RecordId::new(text).expect("an id")
    }

    fn insert(id: &str, field: &str, op: FieldOp) -> Op {
        Op::Insert(Insert { collection: name("todos"), record: record(id), fields: vec![(name(field), op)] })
    }

    fn set(collection: &str, field: &str, op: FieldOp) -> Op {
        Op::Update(Update { collection: name(collection), record: record("a"), field: name(field), op })
    }

    fn entry(ops: Vec<Op>) -> Entry {
        let base = Base { epoch: EpochId::NONE, end: Offset(0) };
        let header = Header::new(RunId([1; 8]), 1, Seq(1), base, Time::MIN);
        Entry::new(header, Arc::new(Body::new(name("allowed"), None, ops, None, Salt([1; 8])))).expect("valid")
    }

    fn ruled(log: &str, user: &str, before: &State, ops: Vec<Op>) -> Option<Code> {
        let (log, user) = (LogName::new(log).expect("a name"), UserId::new(user).expect("a user"));
        let (entry, actor, accepted) = (entry(ops), ActorId([1; 16]), Time::MIN);
        let case = Case { log: &log, actor, user: &user, entry: &entry, before, accepted, now: accepted.ms() };
        match Rules::parse(RULES).expect("rules").rule(&case) {
            Ruling::Refuse { code, .. } => Some(code),
            _ => None,
        }
    }

    #[test]
    fn rules_go_by_ops_and_by_the_state_before() {
        let mut state = State::new(LogId([1; 16]));
        let text = |text: &str| FieldOp::Set(Value::text(text));
        let check = |state: &State, user, ops, expected| assert_eq!(ruled("board/1", user, state, ops), expected);
        check(&state, "bob", vec![insert("a", "title", text("fünf5"))], None);
        check(&state, "bob", vec![insert("a", "title", text("sechs6"))], Some(Code::NotValid));
        check(&state, "bob", vec![set("todos", "title", text("too long"))], Some(Code::NotValid));
        check(&state, "bob", vec![set("todos", "title", FieldOp::Add(vec!["too long".into()]))], Some(Code::NotValid));
        check(&state, "bob", vec![set("todos", "note", text("as long as one likes"))], None);
        assert_eq!(ruled("chat/1", "bob", &state, vec![set("todos", "title", text("too long"))]), None, "another log");

        let logged = Logged {
            offset: Offset(0),
            actor: ActorId([1; 16]),
            user: UserId::new("bob").expect("a user"),
            accepted: Time::MIN,
            base: Offset(0),
            entry: entry(vec![insert("a", "title", text("a"))]),
        };
        state.fold(&logged).expect("folds");
        check(&state, "bob", vec![insert("b", "title", text("b"))], None);
        let two = vec![insert("b", "title", text("b")), insert("c", "title", text("c"))];
        check(&state, "bob", two, Some(Code::QuotaExceeded));
        check(&state, "bob", vec![insert("a", "done", text("")), insert("b", "done", text(""))], None);

        check(&state, "bob", vec![set("head", "name", text("Bob's"))], Some(Code::EntryForbidden));
        let policy = DeletePolicy::Wins;
        let delete = Op::Delete(Delete { collection: name("head"), record: record(""), policy });
        check(&state, "bob", vec![delete], Some(Code::EntryForbidden));
        check(&state, "alice", vec![set("head", "name", text("Alice's"))], None);
        check(&state, "bob", vec![set("todos", "price", FieldOp::Increment(1))], Some(Code::EntryForbidden));
        check(&state, "alice", vec![set("todos", "price", FieldOp::Increment(1))], None);
    }

    #[test]
    fn a_rule_has_one_limit_and_nothing_unknown() {
        let parse = |limit: &str| {
            let json = format!(r#"{{"rules": [{{"log": "*", "collection": "todos", "reason": "so", {limit}}}]}}"#);
            Rules::parse(&json)
        };
        assert!(parse(r#""records_max": 1"#).is_ok());
        assert!(matches!(parse(r#""records_max": 1, "users": []"#), Err(RulesError::Limit(1))));
        assert!(matches!(parse(r#""chars_max": 1"#), Err(RulesError::Limit(1))), "of which field?");
        assert!(matches!(parse(r#""chars_maximum": 1"#), Err(RulesError::Syntax(_))));
    }
}
