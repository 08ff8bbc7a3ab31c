use std::collections::BTreeMap;

use futures::FutureExt as _;
use proptest::prelude::*;

use super::*;

fn name() -> Name {
    Name::new("s").unwrap()
}

fn now(member: &mut Box<dyn Membership>) -> Option<Change> {
    member.next().now_or_never()
}

fn assigned(member: &mut Box<dyn Membership>) -> Vec<Task> {
    match now(member) {
        Some(Change::Assigned(tasks)) => tasks,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_single_instance_owns_all_tasks() {
    let groups = Groups::new(Epoch(7));
    let mut a = groups.join(name(), 0, 3);
    let tasks = assigned(&mut a);
    assert_eq!(tasks.len(), 3);
    assert!(tasks.iter().all(|t| t.epoch > Epoch(7) && groups.is_current(&t.id, t.epoch)));
    assert_eq!(now(&mut a), None);
}

#[test]
fn a_task_moves_only_after_its_release() {
    let groups = Groups::new(Epoch(0));
    let mut a = groups.join(name(), 0, 2);
    let old = assigned(&mut a);
    let mut b = groups.join(name(), 1, 2);
    assert_eq!(now(&mut b), None);
    let Some(Change::Revoke(asked)) = now(&mut a) else { panic!() };
    assert_eq!(asked.len(), 1);
    let before = old.iter().find(|t| t.id == asked[0]).unwrap();
    assert!(groups.is_current(&before.id, before.epoch));
    a.release(&asked);
    let new = assigned(&mut b);
    assert_eq!(new[0].id, asked[0]);
    assert!(new[0].epoch > before.epoch);
    assert!(!groups.is_current(&before.id, before.epoch));
}

#[test]
fn leaving_hands_tasks_on_at_once() {
    let groups = Groups::new(Epoch(0));
    let mut a = groups.join(name(), 0, 2);
    let old = assigned(&mut a);
    let mut b = groups.join(name(), 1, 2);
    drop(a);
    let new = assigned(&mut b);
    assert_eq!(new.len(), 2);
    assert!(old.iter().all(|t| !groups.is_current(&t.id, t.epoch)));
    assert!(new.iter().all(|t| groups.is_current(&t.id, t.epoch)));
    drop(b);
    assert!(new.iter().all(|t| !groups.is_current(&t.id, t.epoch)));
}

#[test]
fn a_second_instance_of_one_number_takes_over() {
    let groups = Groups::new(Epoch(0));
    let mut a = groups.join(name(), 0, 2);
    let old = assigned(&mut a);
    let mut again = groups.join(name(), 0, 2);
    assert_eq!(now(&mut a), Some(Change::Lost(old.iter().map(|t| t.id.clone()).collect())));
    assert_eq!(now(&mut a), None);
    assert!(groups.restart(&old[0]).is_none());
    let new = assigned(&mut again);
    drop(a);
    assert!(new.iter().all(|t| groups.is_current(&t.id, t.epoch)));
}

#[test]
fn a_restart_fences_the_epoch_before() {
    let groups = Groups::new(Epoch(0));
    let mut a = groups.join(name(), 0, 1);
    let old = assigned(&mut a).remove(0);
    let new = groups.restart(&old).unwrap();
    assert!(new.epoch > old.epoch);
    assert!(!groups.is_current(&old.id, old.epoch));
    assert!(groups.is_current(&new.id, new.epoch));
    assert!(groups.restart(&old).is_none());
}

#[tokio::test]
async fn a_waiting_member_is_woken() {
    let groups = Groups::new(Epoch(0));
    let mut a = groups.join(name(), 0, 1);
    let mut b = groups.join(name(), 1, 1);
    let first = assigned(&mut a);
    let waiting = tokio::spawn(async move { b.next().await });
    tokio::task::yield_now().await;
    drop(a);
    let Change::Assigned(tasks) = waiting.await.unwrap() else { panic!() };
    assert_eq!(tasks[0].id, first[0].id);
}

#[derive(Debug, Clone)]
enum Step {
    Join(u32),
    Leave(usize),
    /// Hear the next change and, where it asks, give back.
    Hear(usize),
    Restart(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0u32..5).prop_map(Step::Join),
        (0usize..5).prop_map(Step::Leave),
        (0usize..5).prop_map(Step::Hear),
        (0usize..5).prop_map(Step::Hear),
        (0usize..5).prop_map(Step::Restart),
    ]
}

/// Stands for the number of an instance that another has replaced.
const OUT: u32 = u32::MAX;

type Believer = (Box<dyn Membership>, u32, BTreeMap<TaskId, Epoch>);

/// What the members believe, kept beside the group.
#[derive(Default)]
struct Model {
    members: Vec<Believer>,
    greatest: BTreeMap<TaskId, Epoch>,
}

impl Model {
    fn hear(&mut self, groups: &Groups, at: usize) -> bool {
        let Some((member, _, mine)) = self.members.get_mut(at) else { return false };
        let Some(change) = now(member) else { return false };
        match change {
            Change::Assigned(tasks) => {
                for task in tasks {
                    let before = self.greatest.insert(task.id.clone(), task.epoch);
                    assert!(before < Some(task.epoch), "epochs grow");
                    assert!(groups.is_current(&task.id, task.epoch));
                    mine.insert(task.id, task.epoch);
                }
            }
            Change::Revoke(tasks) => {
                assert!(tasks.iter().all(|t| groups.is_current(t, mine[t])), "still its owner's until released");
                mine.retain(|id, _| !tasks.contains(id));
                member.release(&tasks);
            }
            Change::Lost(tasks) => mine.retain(|id, _| !tasks.contains(id)),
        }
        true
    }
}

proptest! {
    #[test]
    fn every_task_has_one_owner_when_all_have_heard(tasks in 1u32..9, steps in prop::collection::vec(step(), 1..60)) {
        let groups = Groups::new(Epoch(0));
        let mut model = Model::default();
        for step in steps {
            match step {
                Step::Join(i) => {
                    let replaced = model.members.iter_mut().find(|(_, instance, _)| *instance == i);
                    if let Some((_, instance, _)) = replaced {
                        *instance = OUT;
                    }
                    model.members.push((groups.join(name(), i, tasks), i, BTreeMap::new()));
                }
                Step::Leave(i) if i < model.members.len() => drop(model.members.remove(i)),
                Step::Hear(i) => { model.hear(&groups, i); }
                Step::Restart(i) => if let Some((_, _, mine)) = model.members.get_mut(i)
                    && let Some((id, epoch)) = mine.iter_mut().next()
                    && let Some(new) = groups.restart(&Task { id: id.clone(), epoch: *epoch }) {
                    prop_assert!(model.greatest.insert(id.clone(), new.epoch) < Some(new.epoch));
                    *epoch = new.epoch;
                },
                Step::Leave(_) => {}
            }
            // Two members never both hold a current epoch of one task.
            for task in 0..tasks {
                let id = TaskId::new(name(), task);
                let holders = model.members.iter().filter(|(_, _, mine)| {
                    mine.get(&id).is_some_and(|e| groups.is_current(&id, *e))
                });
                prop_assert!(holders.count() <= 1);
            }
        }
        while (0..model.members.len()).any(|i| model.hear(&groups, i)) {}
        prop_assert!(model.members.iter().all(|(_, instance, mine)| *instance != OUT || mine.is_empty()));
        let inside = model.members.iter().filter(|(_, instance, _)| *instance != OUT);
        let shares: Vec<usize> = inside.map(|(_, _, mine)| mine.len()).collect();
        if !shares.is_empty() {
            prop_assert_eq!(shares.iter().sum::<usize>(), tasks as usize);
            prop_assert!(shares.iter().max().unwrap() - shares.iter().min().unwrap() <= 1);
        }
        for (_, _, mine) in &model.members {
            prop_assert!(mine.iter().all(|(id, epoch)| groups.is_current(id, *epoch)));
        }
    }
}
