//! Separation of duties: whether everybody can be given one rule only, so that all rules are met.

use std::collections::{BTreeMap, BTreeSet};

use crate::name::Owner;

/// A rule: how many it needs, and who is willing.
#[derive(Clone, Debug)]
pub(super) struct Need<'a> {
    pub(super) count: usize,
    pub(super) willing: BTreeSet<&'a Owner>,
}

/// Who counts for which need, nobody for two; as many as there can be in all, earlier needs first.
///
/// Augmenting paths (Kuhn): a place that nobody is free for is given to somebody who can be replaced where he is.
pub(super) fn assign<'a>(needs: &[Need<'a>]) -> Vec<BTreeSet<&'a Owner>> {
    let mut given: BTreeMap<&'a Owner, usize> = BTreeMap::new();
    for (need, wanted) in needs.iter().enumerate() {
        for _ in 0..wanted.count {
            if !augment(needs, need, &mut given, &mut BTreeSet::new()) {
                break;
            }
        }
    }
    let owners_of = |need: usize| given.iter().filter(move |(_, of)| **of == need).map(|(owner, _)| *owner);
    (0..needs.len()).map(|need| owners_of(need).collect()).collect()
}

/// One more owner for the need, if there is a way.
fn augment<'a>(
    needs: &[Need<'a>],
    need: usize,
    given: &mut BTreeMap<&'a Owner, usize>,
    tried: &mut BTreeSet<&'a Owner>,
) -> bool {
    let Some(wanted) = needs.get(need) else { return false };
    for owner in wanted.willing.iter().copied() {
        let elsewhere = given.get(owner).copied();
        if elsewhere == Some(need) || !tried.insert(owner) {
            continue;
        }
        let is_free = match elsewhere {
            None => true,
            Some(other) => augment(needs, other, given, tried),
        };
        if is_free {
            given.insert(owner, need);
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By brute force: whether each owner can be given at most one need so that all are met.
    fn can_be_met(needs: &[(usize, u32)], owners: usize) -> bool {
        fn place(left: &mut Vec<usize>, needs: &[(usize, u32)], owner: usize, owners: usize) -> bool {
            if left.iter().all(|left| *left == 0) {
                return true;
            }
            if owner == owners {
                return false;
            }
            for need in 0..needs.len() {
                if needs[need].1 >> owner & 1 == 1 && left[need] > 0 {
                    left[need] -= 1;
                    let met = place(left, needs, owner + 1, owners);
                    left[need] += 1;
                    if met {
                        return true;
                    }
                }
            }
            place(left, needs, owner + 1, owners)
        }
        place(&mut needs.iter().map(|(count, _)| *count).collect(), needs, 0, owners)
    }

    #[test]
    fn finds_a_way_exactly_where_there_is_one() {
        const OWNERS: usize = 4;
        let names: Vec<Owner> = (0..OWNERS).map(|index| format!("owner{index}").parse().unwrap()).collect();
        let mut met = 0;
        // Every choice of willing owners for three rules, with every threshold up to two.
        for sets in 0u32..1 << (3 * OWNERS) {
            for counts in 0..8usize {
                let asked: Vec<(usize, u32)> =
                    (0..3).map(|rule| (1 + (counts >> rule & 1), sets >> (rule * OWNERS) & 0b1111)).collect();
                let needs: Vec<Need<'_>> = asked
                    .iter()
                    .map(|(count, set)| Need {
                        count: *count,
                        willing: names
                            .iter()
                            .enumerate()
                            .filter(|(i, _)| set >> i & 1 == 1)
                            .map(|(_, o)| o)
                            .collect(),
                    })
                    .collect();
                let assigned = assign(&needs);
                let mut seen = BTreeSet::new();
                for (owners, need) in assigned.iter().zip(&needs) {
                    assert!(owners.is_subset(&need.willing) && owners.len() <= need.count, "{asked:?}");
                    assert!(owners.iter().all(|owner| seen.insert(*owner)), "{asked:?}: one counts twice");
                }
                let all = assigned.iter().zip(&needs).all(|(owners, need)| owners.len() == need.count);
                assert_eq!(all, can_be_met(&asked, OWNERS), "{asked:?}: {assigned:?}");
                met += usize::from(all);
            }
        }
        assert!(met > 1000);
    }

    #[test]
    fn nothing_needed_is_met() {
        assert_eq!(assign(&[]), Vec::<BTreeSet<&Owner>>::new());
    }
}
