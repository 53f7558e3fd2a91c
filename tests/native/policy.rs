//! An operator's rules, from the act on one client to the view of another.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use driftlog_core::id::{ActorId, LogName, Name, WriteId};
use driftlog_core::notice::{LogStatus, Notice, Refused, WriteStatus};
use driftlog_core::op::{FieldOp, Op, Update};
use driftlog_core::protocol::Code;
use driftlog_core::sequencer::{Case, Ruling};
use driftlog_core::value::Value;
use driftlog_tests::native::NativeClient;

use crate::board::{Server, add, log, rows, schema, titles, vote};
use crate::client;

fn todos() -> Name {
    Name::new("todos").unwrap()
}

/// The refusal of an own entry, as the app is told.
async fn refusal(client: &mut NativeClient, of: WriteId) -> Refused {
    while let Some(notice) = client.notices.recv().await {
        match notice {
            Notice::Write(_, write, WriteStatus::Refused(refused)) if write == of => return refused,
            Notice::Write(_, write, WriteStatus::Accepted(_)) if write == of => panic!("it was accepted"),
            _ => {}
        }
    }
    panic!("the client ended")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_refuses_and_once_it_is_raised_new_work_passes() {
    let quota = Arc::new(AtomicUsize::new(2));
    let allowed = Arc::clone(&quota);
    let server = Server::start_with_policy(move |case: &Case<'_>| {
        let adds = case.ops().iter().any(|op| matches!(op, Op::Insert(_)));
        let there = case.before.collection(&todos()).map_or(0, |records| records.len());
        match adds && there >= allowed.load(Ordering::Relaxed) {
            true => Ruling::Refuse { code: Code::QuotaExceeded, reason: format!("{there} todos are enough") },
            false => Ruling::Allow,
        }
    });
    let server = server.await;
    let (mut alice, bob) = (client(&server).await, client(&server).await);
    crate::offline(&alice).await;
    alice.act(&log(), add("a", "")).await.unwrap();
    alice.act(&log(), add("b", "")).await.unwrap();
    let beyond = alice.act(&log(), add("c", "")).await.unwrap();
    let on_it = alice.act(&log(), vote("c", 1)).await.unwrap();
    alice.act(&log(), vote("a", 3)).await.unwrap();
    crate::online(&alice, &server).await;
    let refused = refusal(&mut alice, beyond).await;
    assert_eq!((refused.code, refused.reason.as_str()), (Some(Code::QuotaExceeded), "2 todos are enough"));
    let refused = refusal(&mut alice, on_it).await;
    assert_eq!(refused.code, Some(Code::DependsOn));
    alice.quiet(&log()).await;
    for client in [&alice, &bob] {
        client.until(|engine| (crate::board::end(engine) == 3).then_some(())).await;
        assert_eq!(client.call(|engine, _| titles(engine)).await, ["a", "b"]);
        assert_eq!(client.call(|engine, _| rows(engine)[0]["votes"].clone()).await, 3);
    }
    quota.store(3, Ordering::Relaxed);
    alice.act(&log(), add("d", "")).await.unwrap();
    bob.until(|engine| (titles(engine) == ["a", "b", "d"]).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_policy_adds_reaches_everybody_and_goes_on_after_a_restart() {
    // The server numbers every todo in its title.
    let mut server = Server::start_with_policy(|case: &Case<'_>| {
        let Some(Op::Insert(insert)) = case.ops().first() else { return Ruling::Allow };
        let number = case.before.collection(&todos()).map_or(0, |records| records.len()) + 1;
        let op = FieldOp::Set(Value::text(format!("{number}: {}", insert.record)));
        let (collection, record) = (insert.collection.clone(), insert.record.clone());
        let field = Name::new("title").unwrap();
        let ops = vec![Op::Update(Update { collection, record, field, op })];
        Ruling::AllowWith { name: Name::new("number").unwrap(), args: None, ops }
    })
    .await;
    let alice = client(&server).await;
    alice.act(&log(), add("milk", "")).await.unwrap();
    alice.act(&log(), add("tea", "")).await.unwrap();
    alice.until(|engine| (titles(engine) == ["1: milk", "2: tea"]).then_some(())).await;
    alice.quiet(&log()).await;
    server.restart().await;
    crate::offline(&alice).await;
    crate::online(&alice, &server).await;
    alice.act(&log(), add("zest", "")).await.unwrap();
    let bob = client(&server).await;
    for client in [&alice, &bob] {
        client.until(|engine| (titles(engine) == ["1: milk", "2: tea", "3: zest"]).then_some(())).await;
        client.quiet(&log()).await;
        let own = |engine: &mut driftlog_core::engine::Engine| {
            let state = engine.replica(&log()).unwrap().state();
            (state.folded(ActorId::LOG).0, state.user(ActorId::LOG).map(|user| user.to_string()), state.digest())
        };
        let (seq, user, _) = client.call(move |engine, _| own(engine)).await;
        assert_eq!((seq, user.as_deref()), (3, Some("$log")));
        let digests = (client.call(move |engine, _| own(engine).2).await, alice.call(move |engine, _| own(engine).2));
        assert_eq!(digests.0, digests.1.await);
    }
    assert_eq!(server.snapshot().await["todos"]["zest"]["title"], "3: zest");
}

#[tokio::test(flavor = "multi_thread")]
async fn retry_later_holds_one_author_in_one_log_and_nobody_else() {
    let open = Arc::new(AtomicBool::new(false));
    let door = Arc::clone(&open);
    let held = |op: &Op| op.target().is_some_and(|(_, record)| record.as_str() == "later");
    let server = Server::start_with_policy(move |case: &Case<'_>| {
        let wait = case.ops().iter().any(held) && !door.load(Ordering::Relaxed);
        let delay = Duration::from_millis(20);
        match wait {
            true => Ruling::RetryLater { reason: "the prices are loading".to_owned(), delay },
            false => Ruling::Allow,
        }
    })
    .await;
    let (alice, bob) = (client(&server).await, client(&server).await);
    let other = LogName::new("board/2").unwrap();
    alice.open(&other, schema()).await;
    alice.act(&log(), add("before", "")).await.unwrap();
    alice.act(&log(), add("later", "")).await.unwrap();
    alice.act(&log(), add("with it", "")).await.unwrap();
    let state = |engine: &mut driftlog_core::engine::Engine| engine.replica(&log()).unwrap().log_state();
    alice.until(move |engine| (state(engine).status == LogStatus::Held).then_some(())).await;
    let shown = alice.call(move |engine, _| state(engine)).await;
    assert_eq!((shown.reason.as_str(), shown.dead_letters), ("the prices are loading", 0));
    alice.act(&other, add("elsewhere", "")).await.unwrap();
    alice.quiet(&other).await;
    bob.act(&log(), add("by bob", "")).await.unwrap();
    bob.quiet(&log()).await;
    alice.until(|engine| titles(engine).contains(&"by bob".to_owned()).then_some(())).await;
    assert_eq!(bob.call(|engine, _| titles(engine)).await, ["before", "by bob"]);
    assert_eq!(alice.call(|engine, _| titles(engine)).await, ["before", "by bob", "later", "with it"]);
    open.store(true, Ordering::Relaxed);
    alice.quiet(&log()).await;
    bob.until(|engine| (titles(engine) == ["before", "by bob", "later", "with it"]).then_some(())).await;
}
