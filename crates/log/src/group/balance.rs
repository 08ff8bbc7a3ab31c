//! Who should own which task: a pure function of who is there and who owns what.

use std::collections::{BTreeMap, BTreeSet};

/// A partition's number, standing for the task on it.
pub(super) type TaskNo = u32;
/// A member's number, never used twice.
pub(super) type MemberNo = u64;

/// Gives each of `tasks` tasks one owner among `members`: shares differ by at most one, and as few tasks as possible
/// leave the owner that they have in `owners`. Empty without members.
pub(super) fn balance(
    tasks: u32,
    members: &BTreeSet<MemberNo>,
    owners: &BTreeMap<TaskNo, MemberNo>,
) -> BTreeMap<TaskNo, MemberNo> {
    if members.is_empty() {
        return BTreeMap::new();
    }
    let mut held: BTreeMap<MemberNo, Vec<TaskNo>> = members.iter().map(|m| (*m, Vec::new())).collect();
    let mut free: BTreeSet<TaskNo> = BTreeSet::new();
    for task in 0..tasks {
        match owners.get(&task).and_then(|owner| held.get_mut(owner)) {
            Some(list) => list.push(task),
            None => {
                free.insert(task);
            }
        }
    }
    // Whoever has most keeps the one that is left over from an even split: nothing moves that need not.
    let mut held: Vec<(MemberNo, Vec<TaskNo>)> = held.into_iter().collect();
    held.sort_by_key(|(member, list)| (std::cmp::Reverse(list.len()), *member));
    let (even, left_over) = (tasks as usize / held.len(), tasks as usize % held.len());
    let quota = |rank: usize| even + usize::from(rank < left_over);
    for (rank, (_, list)) in held.iter_mut().enumerate() {
        let keep = quota(rank).min(list.len());
        free.extend(list.split_off(keep));
    }
    for (rank, (_, list)) in held.iter_mut().enumerate() {
        while list.len() < quota(rank) {
            match free.pop_first() {
                Some(task) => list.push(task),
                None => break,
            }
        }
    }
    held.into_iter().flat_map(|(member, list)| list.into_iter().map(move |task| (task, member))).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The fewest tasks that must move from living owners, found by counting: all that is above the fairest quotas.
    fn fewest_moves(tasks: u32, members: &BTreeSet<MemberNo>, owners: &BTreeMap<TaskNo, MemberNo>) -> usize {
        let mut counts: Vec<usize> = members
            .iter()
            .map(|m| owners.iter().filter(|(task, owner)| **task < tasks && *owner == m).count())
            .collect();
        counts.sort_by_key(|c| std::cmp::Reverse(*c));
        let (even, left) = (tasks as usize / counts.len(), tasks as usize % counts.len());
        counts.iter().enumerate().map(|(i, c)| c.saturating_sub(even + usize::from(i < left))).sum()
    }

    proptest! {
        #[test]
        fn shares_are_even_and_few_tasks_move(
            tasks in 0u32..40,
            members in prop::collection::btree_set(0u64..12, 1..8),
            owners in prop::collection::btree_map(0u32..50, 0u64..12, 0..50),
        ) {
            let target = balance(tasks, &members, &owners);
            prop_assert_eq!(target.keys().copied().collect::<Vec<_>>(), (0..tasks).collect::<Vec<_>>());
            let counts: Vec<usize> =
                members.iter().map(|m| target.values().filter(|owner| *owner == m).count()).collect();
            prop_assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1);
            prop_assert!(target.values().all(|owner| members.contains(owner)));
            let moved = target
                .iter()
                .filter(|(task, owner)| owners.get(task).is_some_and(|old| members.contains(old) && old != *owner))
                .count();
            prop_assert_eq!(moved, fewest_moves(tasks, &members, &owners));
            prop_assert_eq!(balance(tasks, &members, &target), target);
        }
    }

    #[test]
    fn without_members_nobody_owns_anything() {
        assert!(balance(3, &BTreeSet::new(), &BTreeMap::new()).is_empty());
    }
}
