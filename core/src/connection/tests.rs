//! The policy, by cases and by numbers that are drawn.

use super::*;
use crate::random::Random;

const NOW: WallMs = 1_000_000;
const LIMITS: Limits = Limits {
    idle_ms: 100_000,
    lag_entries_max: 1_000,
    lag_bytes_max: 50_000,
    stuck_ms: 5_000,
    active_of_user_max: 3,
    active_max: 6,
    live_max: 4,
    quiet_ms: 10_000,
};

fn id(user: &str, client: u8) -> ConnectionId {
    ConnectionId { user: UserId::new(user).expect("a user"), client: ClientId([client; 16]) }
}

/// A connection that did something so many milliseconds ago.
fn standing(user: &str, client: u8, live: bool, ago: u64) -> Standing {
    let at = NOW - ago;
    Standing { id: id(user, client), live, seen: at, acted: at, moved: at, lag: Lag::default() }
}

fn live(user: &str, client: u8, ago: u64) -> Standing {
    standing(user, client, true, ago)
}

fn away(user: &str, client: u8, ago: u64) -> Standing {
    standing(user, client, false, ago)
}

#[test]
fn who_is_away_for_too_long_is_idle_and_who_has_a_socket_never_is() {
    let standings = [away("a", 1, 99_999), away("a", 2, 100_000), live("a", 3, 900_000)];
    assert_eq!(downgrades(NOW, &standings, &LIMITS), BTreeMap::from([(id("a", 2), Downgrade::Idle)]));
}

#[test]
fn who_is_too_far_behind_goes_unless_it_is_catching_up() {
    let behind = |standing: Standing, entries, bytes| Standing { lag: Lag { entries, bytes }, ..standing };
    let standings = [
        behind(away("a", 1, 1), 1_000, 50_000),
        behind(away("a", 2, 1), 1_001, 0),
        behind(away("b", 3, 1), 1, 50_001),
        behind(live("b", 4, 4_999), 9_999, 0),
        behind(live("b", 5, 5_000), 9_999, 0),
    ];
    let gone = downgrades(NOW, &standings, &LIMITS);
    assert_eq!(gone, [(id("a", 2)), id("b", 3), id("b", 5)].map(|id| (id, Downgrade::Lag)).into());
}

#[test]
fn of_too_many_those_who_work_stay() {
    let standings = [live("a", 1, 2), live("a", 2, 1), away("a", 3, 0), away("a", 4, 7), live("b", 5, 9_000)];
    let gone = downgrades(NOW, &standings, &LIMITS);
    assert_eq!(gone, BTreeMap::from([(id("a", 4), Downgrade::Pressure)]), "one of the user that has too many");
    let limits = Limits { active_max: 2, ..LIMITS };
    let gone: Vec<_> = downgrades(NOW, &standings, &limits).into_keys().collect();
    assert_eq!(gone, [id("a", 3), id("a", 4), id("b", 5)]);
}

#[test]
fn a_newcomer_takes_the_place_of_who_is_quiet_and_of_nobody_who_works() {
    let here = |ago: [u64; 4]| [0u8, 1, 2, 3].map(|at| live(["a", "b"][at as usize % 2], at, ago[at as usize]));
    let newcomer = id("c", 9);
    assert_eq!(admit(NOW, &newcomer, &here([1, 9_999, 5, 2]), &LIMITS), Admission::Later);
    let quiet = here([1, 10_000, 10_001, 2]);
    assert_eq!(admit(NOW, &newcomer, &quiet, &LIMITS), Admission::Welcome(vec![id("a", 2)]));
    assert_eq!(admit(NOW, &id("a", 0), &quiet, &LIMITS), Admission::Welcome(vec![]), "its own place is its own");
}

#[test]
fn a_newcomer_of_a_user_with_many_takes_the_place_of_one_of_them() {
    let standings = [away("a", 1, 5), live("a", 2, 50_000), away("a", 3, 6), away("b", 4, 70_000)];
    assert_eq!(admit(NOW, &id("a", 9), &standings, &LIMITS), Admission::Welcome(vec![id("a", 3)]));
    assert_eq!(admit(NOW, &id("c", 9), &standings, &LIMITS), Admission::Welcome(vec![]));
    let limits = Limits { active_max: 3, ..LIMITS };
    let gone = vec![id("b", 4), id("a", 3)];
    assert_eq!(admit(NOW, &id("c", 9), &standings, &limits), Admission::Welcome(gone));
}

/// Whatever the numbers: afterwards every limit holds, nobody goes without need, and whoever stays was more at work
/// than whoever went for pressure.
#[test]
fn the_limits_hold_and_nobody_goes_without_need() {
    let mut random = Random::new([8; 32]);
    for _ in 0..2_000 {
        let count = random.below(24) as u8;
        let standings: Vec<_> = (0..count)
            .map(|client| {
                let user = ["a", "b", "c"][random.below(3) as usize];
                let mut standing = standing(user, client, random.below(2) == 0, random.below(120_000));
                standing.lag = Lag { entries: random.below(1_200), bytes: random.below(55_000) };
                standing
            })
            .collect();
        let limits = Limits {
            active_of_user_max: 1 + random.below(5) as usize,
            active_max: 1 + random.below(12) as usize,
            ..LIMITS
        };
        let gone = downgrades(NOW, &standings, &limits);
        let stay: Vec<_> = standings.iter().filter(|standing| !gone.contains_key(&standing.id)).collect();
        let of = |user: &UserId| stay.iter().filter(|standing| standing.id.user == *user).count();
        assert!(stay.len() <= limits.active_max);
        for standing in &standings {
            let own = overdue(NOW, standing, &limits);
            match gone.get(&standing.id) {
                None => {
                    assert_eq!(own, None);
                    assert!(of(&standing.id.user) <= limits.active_of_user_max);
                }
                Some(Downgrade::Pressure) => {
                    let full = of(&standing.id.user) == limits.active_of_user_max || stay.len() == limits.active_max;
                    assert!(full && own.is_none(), "it went, and there was room");
                    let before = |other: &&&Standing| last_to_go(other) < last_to_go(standing);
                    assert!(
                        !stay.iter().filter(before).any(|other| other.id.user == standing.id.user),
                        "one of the same user stays that is less at work"
                    );
                }
                reason => assert_eq!(reason.copied(), own),
            }
        }
        let newcomer = id("d", 99);
        let here: Vec<_> = stay.into_iter().cloned().collect();
        if let Admission::Welcome(gone) = admit(NOW, &newcomer, &here, &limits) {
            let after: Vec<_> = here.iter().filter(|standing| !gone.contains(&standing.id)).collect();
            assert!(after.len() < limits.active_max);
            assert!(after.iter().filter(|standing| standing.live).count() < limits.live_max);
            let works = |standing: &&Standing| standing.live && NOW - standing.acted < limits.quiet_ms;
            assert!(!here.iter().filter(|standing| gone.contains(&standing.id)).any(|standing| works(&standing)));
        }
    }
}

#[test]
fn reasons_keep_their_numbers() {
    for reason in Downgrade::ALL {
        assert_eq!(Downgrade::from_number(reason.number()), reason);
    }
    assert_eq!(Downgrade::ALL.map(Downgrade::name), ["idle", "lag", "pressure", "asked"]);
}
