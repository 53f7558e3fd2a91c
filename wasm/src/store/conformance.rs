//! What every [`Store`] must do, checked against an implementation by [`run`].

use super::{CommitError, Direction, Durability, Key, KeyRange, Row, Store, StoreError, Write};

/// How many checks the suite has.
pub(crate) const CHECKS: usize = 13;

/// Why an implementation does not conform.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    /// A check found something else than the store promises.
    #[error("{check}: {found}")]
    Check {
        /// The check, as a sentence.
        check: &'static str,
        /// What was found.
        found: String,
    },
    /// The store failed where it must not.
    #[error("{check}: {error}")]
    Store {
        /// The check, as a sentence.
        check: &'static str,
        /// The store's error.
        error: String,
    },
}

/// Runs all checks on a store that starts empty; `open` gives another handle on the same rows each time.
///
/// # Errors
/// [`Broken`] names the first check that failed. Otherwise: how many passed.
pub(crate) async fn run<S, O>(open: O) -> Result<usize, Broken>
where
    S: Store,
    O: AsyncFn(&'static str) -> Result<S, StoreError>,
{
    let mut passed = 0;
    macro_rules! check {
        ($check:ident) => {
            let name = stringify!($check);
            let broken = |error: StoreError| Broken::Store { check: name, error: error.to_string() };
            let first = open(name).await.map_err(broken)?;
            let second = open(name).await.map_err(broken)?;
            $check(&first, &second).await.map_err(|found| Broken::Check { check: name, found })?;
            first.close();
            second.close();
            passed += 1;
        };
    }
    check!(empty_store_reads_nothing);
    check!(keys_are_ordered_by_their_bytes);
    check!(a_range_holds_its_start_and_not_its_end);
    check!(limit_and_direction_choose_the_rows);
    check!(one_read_answers_many_ranges_in_order);
    check!(a_commit_reads_what_was_committed);
    check!(add_on_an_existing_key_fails_the_whole_commit);
    check!(an_abort_writes_nothing);
    check!(delete_range_is_half_open);
    check!(two_handles_lose_no_update);
    check!(a_read_never_sees_half_a_commit);
    check!(large_and_empty_values_survive);
    check!(a_closed_handle_says_so_and_the_rows_stay);
    Ok(passed)
}

type Outcome = Result<(), String>;

fn expect<T: PartialEq + std::fmt::Debug>(found: T, expected: T) -> Outcome {
    if found == expected {
        return Ok(());
    }
    let mut text = format!("expected {expected:?}, found {found:?}");
    text.truncate(600);
    Err(text)
}

/// A key of one check: its tag, then the rest.
fn key(tag: u8, rest: &[u8]) -> Key {
    [&[tag], rest].concat()
}

fn all(tag: u8) -> KeyRange {
    KeyRange::between([tag].to_vec(), [tag + 1].to_vec())
}

/// The same range, highest key first.
fn backward(range: KeyRange) -> KeyRange {
    KeyRange { direction: Direction::Backward, ..range }
}

/// At most so many rows of the range.
fn first(limit: u32, range: KeyRange) -> KeyRange {
    KeyRange { limit: Some(limit), ..range }
}

async fn write<S: Store>(store: &S, writes: Vec<Write>) -> Outcome {
    store.commit(Durability::Relaxed, &[], |_| Ok::<_, ()>((writes, ()))).await.map_err(|error| format!("{error:?}"))
}

async fn keys<S: Store>(store: &S, range: KeyRange) -> Result<Vec<Key>, String> {
    let rows = rows(store, &[range]).await?.remove(0);
    Ok(rows.into_iter().map(|(key, _)| key).collect())
}

async fn rows<S: Store>(store: &S, ranges: &[KeyRange]) -> Result<Vec<Vec<Row>>, String> {
    store.read(ranges).await.map_err(|error| error.to_string())
}

fn puts(tag: u8, rests: &[&[u8]]) -> Vec<Write> {
    rests.iter().map(|rest| Write::Put(key(tag, rest), rest.to_vec())).collect()
}

async fn empty_store_reads_nothing<S: Store>(store: &S, _: &S) -> Outcome {
    let ranges = [all(1), backward(all(1)), KeyRange::only([1, 2].to_vec())];
    expect(rows(store, &ranges).await?, vec![vec![], vec![], vec![]])?;
    expect(rows(store, &[]).await?, vec![])
}

async fn keys_are_ordered_by_their_bytes<S: Store>(store: &S, _: &S) -> Outcome {
    write(store, puts(2, &[&[255], &[0], &[], &[128, 0], &[0, 0], &[127, 255], &[128]])).await?;
    let ordered: [&[u8]; 7] = [&[], &[0], &[0, 0], &[127, 255], &[128], &[128, 0], &[255]];
    let expected = ordered.iter().map(|rest| key(2, rest)).collect::<Vec<_>>();
    expect(keys(store, all(2)).await?, expected)
}

async fn a_range_holds_its_start_and_not_its_end<S: Store>(store: &S, _: &S) -> Outcome {
    write(store, puts(3, &[&[1], &[2], &[3], &[4]])).await?;
    let range = KeyRange::between([3, 2].to_vec(), [3, 4].to_vec());
    expect(keys(store, range.clone()).await?, vec![vec![3, 2], vec![3, 3]])?;
    expect(keys(store, backward(range)).await?, vec![vec![3, 3], vec![3, 2]])?;
    expect(keys(store, KeyRange::between([3, 2].to_vec(), [3, 2].to_vec())).await?, vec![])?;
    expect(keys(store, backward(KeyRange::between([3, 4].to_vec(), [3, 2].to_vec()))).await?, vec![])?;
    expect(keys(store, KeyRange::only([3, 2].to_vec())).await?, vec![vec![3, 2]])?;
    expect(keys(store, first(1, KeyRange { end: None, ..KeyRange::only(vec![3, 4]) })).await?, vec![vec![3, 4]])
}

async fn limit_and_direction_choose_the_rows<S: Store>(store: &S, _: &S) -> Outcome {
    write(store, puts(4, &[&[1], &[2], &[3]])).await?;
    expect(keys(store, first(2, all(4))).await?, vec![vec![4, 1], vec![4, 2]])?;
    expect(keys(store, first(2, backward(all(4)))).await?, vec![vec![4, 3], vec![4, 2]])?;
    expect(keys(store, first(9, backward(all(4)))).await?.len(), 3)?;
    expect(keys(store, first(0, all(4))).await?, vec![])
}

async fn one_read_answers_many_ranges_in_order<S: Store>(store: &S, _: &S) -> Outcome {
    write(store, puts(5, &[&[1], &[2], &[3]])).await?;
    let ranges = [
        KeyRange::only([5, 3].to_vec()),
        first(1, backward(all(5))),
        KeyRange::only([5, 9].to_vec()),
        first(1, all(5)),
    ];
    let row = |n: u8| vec![(vec![5, n], vec![n])];
    expect(rows(store, &ranges).await?, vec![row(3), row(3), vec![], row(1)])
}

async fn a_commit_reads_what_was_committed<S: Store>(store: &S, other: &S) -> Outcome {
    write(other, puts(6, &[&[1], &[3]])).await?;
    let reads = [vec![6, 3], vec![6, 2], vec![6, 1]];
    let seen = store
        .commit(Durability::Strict, &reads, |values| {
            Ok::<_, ()>((vec![Write::Add(vec![6, 2], vec![2])], values.to_vec()))
        })
        .await
        .map_err(|error| format!("{error:?}"))?;
    expect(seen, vec![Some(vec![3]), None, Some(vec![1])])?;
    expect(keys(other, all(6)).await?.len(), 3)
}

async fn add_on_an_existing_key_fails_the_whole_commit<S: Store>(store: &S, other: &S) -> Outcome {
    write(store, puts(7, &[&[5]])).await?;
    let writes = vec![
        Write::Put(vec![7, 1], vec![1]),
        Write::Delete(vec![7, 5]),
        Write::Add(vec![7, 5], vec![6]),
        Write::Add(vec![7, 5], vec![7]),
        Write::Add(vec![7, 5], vec![8]),
    ];
    let outcome = other.commit(Durability::Strict, &[], |_| Ok::<_, ()>((writes, ()))).await;
    expect(outcome, Err(CommitError::Conflict))?;
    expect(rows(store, &[all(7)]).await?, vec![vec![(vec![7, 5], vec![5])]])
}

async fn an_abort_writes_nothing<S: Store>(store: &S, _: &S) -> Outcome {
    let outcome = store.commit(Durability::Strict, &[vec![8]], |_| Err::<(Vec<Write>, ()), _>("no")).await;
    expect(outcome, Err(CommitError::Aborted("no")))?;
    write(store, puts(8, &[&[1]])).await?;
    expect(keys(store, all(8)).await?.len(), 1)
}

async fn delete_range_is_half_open<S: Store>(store: &S, _: &S) -> Outcome {
    write(store, puts(9, &[&[1], &[2], &[2, 1], &[3], &[4]])).await?;
    let writes = vec![
        Write::DeleteRange(vec![9, 2], vec![9, 3]),
        Write::DeleteRange(vec![9, 4], vec![9, 4]),
        Write::DeleteRange(vec![9, 9], vec![9, 1]),
        Write::Delete(vec![9, 1]),
        Write::Delete(vec![9, 77]),
    ];
    write(store, writes).await?;
    expect(keys(store, all(9)).await?, vec![vec![9, 3], vec![9, 4]])
}

async fn two_handles_lose_no_update<S: Store>(store: &S, other: &S) -> Outcome {
    const ROUNDS: u8 = 20;
    let counter = [vec![10]];
    let count = async |store: &S| {
        for _ in 0..ROUNDS {
            let one_more = |values: &[Option<Vec<u8>>]| {
                let n = values[0].as_ref().map_or(0, |value| value[0]);
                Ok::<_, ()>((vec![Write::Put(vec![10], vec![n + 1])], ()))
            };
            store.commit(Durability::Relaxed, &counter, one_more).await.map_err(|error| format!("{error:?}"))?;
        }
        Ok::<_, String>(())
    };
    both(count(store), count(other)).await?;
    let range = KeyRange::only([10].to_vec());
    expect(rows(store, &[range]).await?, vec![vec![(vec![10], vec![2 * ROUNDS])]])
}

async fn a_read_never_sees_half_a_commit<S: Store>(store: &S, other: &S) -> Outcome {
    const ROUNDS: u8 = 20;
    let writer = async {
        for n in 1..=ROUNDS {
            write(store, vec![Write::Put(vec![11, 1], vec![n]), Write::Put(vec![11, 2], vec![n])]).await?;
        }
        Ok(())
    };
    let reader = async {
        for _ in 0..ROUNDS {
            let ranges = [KeyRange::only([11, 1].to_vec()), first(1, backward(all(11)))];
            let found = rows(other, &ranges).await?;
            let value = |n: usize| found[n].first().map(|(_, value)| value.clone());
            expect(value(0), value(1))?;
        }
        Ok(())
    };
    both(writer, reader).await
}

async fn large_and_empty_values_survive<S: Store>(store: &S, other: &S) -> Outcome {
    let large: Vec<u8> = (0..1_000_000_u32).map(|n| (n % 251) as u8).collect();
    let mut writes = vec![Write::Add(vec![12, 0], vec![]), Write::Add(vec![12, 1], large.clone())];
    writes.extend((0..1_000_u16).map(|n| Write::Add(key(12, &[2, (n >> 8) as u8, n as u8]), vec![7])));
    write(store, writes).await?;
    let found = rows(other, &[first(2, all(12)), KeyRange::between([12, 2].to_vec(), [12, 3].to_vec())]).await?;
    expect(found[1].len(), 1_000)?;
    expect(found[0].clone(), vec![(vec![12, 0], vec![]), (vec![12, 1], large)])
}

async fn a_closed_handle_says_so_and_the_rows_stay<S: Store>(store: &S, other: &S) -> Outcome {
    write(store, puts(13, &[&[1]])).await?;
    store.close();
    expect(store.read(&[all(13)]).await, Err(StoreError::Closed))?;
    let outcome = store.clone().commit(Durability::Strict, &[], |_| Ok::<_, ()>((vec![], ()))).await;
    expect(outcome, Err(CommitError::Store(StoreError::Closed)))?;
    expect(keys(other, all(13)).await?.len(), 1)
}

/// Runs two futures side by side until both are done.
async fn both(first: impl Future<Output = Outcome>, second: impl Future<Output = Outcome>) -> Outcome {
    use std::pin::pin;
    use std::task::Poll;
    let (mut first, mut second) = (pin!(first), pin!(second));
    let (mut first_done, mut second_done) = (None, None);
    std::future::poll_fn(move |context| {
        if first_done.is_none()
            && let Poll::Ready(outcome) = first.as_mut().poll(context)
        {
            first_done = Some(outcome);
        }
        if second_done.is_none()
            && let Poll::Ready(outcome) = second.as_mut().poll(context)
        {
            second_done = Some(outcome);
        }
        match (first_done.take(), second_done.take()) {
            (Some(first), Some(second)) => Poll::Ready(first.and(second)),
            (first, second) => {
                (first_done, second_done) = (first, second);
                Poll::Pending
            }
        }
    })
    .await
}
