//! What befalls the nodes: starts, kills, takeovers, pauses, storms, puts that land long after.

use std::sync::Arc;
use std::time::Duration;

use plinth_storage::Kind;
use rand::Rng;
use rand::rngs::StdRng;
use tokio::task::JoinSet;

use crate::chaos::Weather;
use crate::sleep;
use crate::world::World;

/// Nodes that live at a time.
const LIVE_MAX: usize = 3;

/// How bad this run is, as a whole.
#[derive(Clone, Copy, Debug)]
struct Climate {
    slow_one_in: u32,
    broken_read_one_in: u32,
    put_faults_one_in: u32,
    rest_ms_max: u64,
}

/// Lets fate have its way until the run is over.
pub async fn rule(world: Arc<World>) {
    let mut random = world.random("fate", 0);
    let climate = climate(&mut random);
    let mut tasks = JoinSet::new();
    while !world.is_over() {
        world.rest(&mut random, 50..climate.rest_ms_max).await;
        while tasks.try_join_next().is_some() {}
        if world.live() == 0 && tasks.is_empty() {
            start(&world, &mut random, &mut tasks, climate);
            continue;
        }
        match random.random_range(0..15) {
            0 | 1 if world.live() < LIVE_MAX && tasks.len() < 3 => start(&world, &mut random, &mut tasks, climate),
            2 => kill(&world, &mut random),
            3 => close(&world, &mut random, &mut tasks),
            4 | 5 => pause(&world, &mut random, &mut tasks),
            6 => storm(&world, &mut random, &mut tasks),
            7 | 8 => release_late(&world, &mut random).await,
            9 | 10 => checkpoint(&world, &mut random),
            11 | 12 => compact(&world, &mut random, &mut tasks),
            // Long enough for a checkpoint, a sweep and a grace.
            13 => world.rest(&mut random, 3000..15_000).await,
            _ => {}
        }
    }
    tasks.shutdown().await;
    world.go_on();
}

fn climate(random: &mut StdRng) -> Climate {
    let rest_ms_max = random.random_range(1000..6000);
    let mut one_in =
        |low: u32, high: u32| if random.random_range(0..4) == 0 { 0 } else { random.random_range(low..high) };
    Climate {
        slow_one_in: one_in(10, 200),
        broken_read_one_in: one_in(5, 60),
        put_faults_one_in: one_in(2, 30),
        rest_ms_max,
    }
}

fn start(world: &Arc<World>, random: &mut StdRng, tasks: &mut JoinSet<()>, climate: Climate) {
    let Climate { slow_one_in, broken_read_one_in, put_faults_one_in, .. } = climate;
    let weather = Weather { slow_one_in, broken_read_one_in, lost_delete_one_in: put_faults_one_in, away: false };
    // Some are killed before they have come up.
    let patience =
        Duration::from_millis(if random.random_range(0..4) == 0 { random.random_range(10..400) } else { 120_000 });
    let world = Arc::clone(world);
    tasks.spawn(async move {
        let newest = world.newest();
        match tokio::time::timeout(patience, world.start(weather, put_faults_one_in)).await {
            // One that another one has overtaken may look for what that one has deleted since.
            Ok(Err(error)) if error.kind() == Kind::Corrupt && broken_read_one_in == 0 && world.newest() == newest => {
                world.wrong(format!("a start finds the bucket corrupt: {error}"));
            }
            Ok(_) | Err(_) => {}
        }
    });
}

fn any_live(world: &World, random: &mut StdRng) -> Option<u32> {
    let mut number = None;
    world.with_live(random, |node| number = Some(node.number));
    number
}

fn kill(world: &World, random: &mut StdRng) {
    if let Some(number) = any_live(world, random) {
        world.kill(number);
    }
}

fn close(world: &Arc<World>, random: &mut StdRng, tasks: &mut JoinSet<()>) {
    let mut log = None;
    world.with_live(random, |node| log = node.log.clone().map(|log| (node.number, log)));
    let (Some((number, log)), world) = (log, Arc::clone(world)) else { return };
    tasks.spawn(async move {
        let closed = log.close().await;
        world.trace.line(&format!("n{number} closed: {}", closed.is_ok()));
        world.kill(number);
    });
}

fn pause(world: &World, random: &mut StdRng, tasks: &mut JoinSet<()>) {
    let mut chaos = None;
    let long = Duration::from_millis(random.random_range(100..40_000));
    world.with_live(random, |node| chaos = node.handle().map(|handle| (handle, node.chaos.clone())));
    let Some((handle, chaos)) = chaos else { return };
    world.trace.line(&format!("n{} pauses for {long:?}", handle.number));
    chaos.set_paused(true);
    tasks.spawn(async move {
        // One that is killed meanwhile stays as it is.
        if handle.call(sleep(long)).await.is_some() {
            chaos.set_paused(false);
        }
    });
}

fn storm(world: &World, random: &mut StdRng, tasks: &mut JoinSet<()>) {
    let long = Duration::from_millis(random.random_range(100..15_000));
    let mut chaos = None;
    world.with_live(random, |node| chaos = Some((node.number, node.chaos.clone())));
    let Some((number, chaos)) = chaos else { return };
    world.trace.line(&format!("n{number} has no store for {long:?}"));
    chaos.set_away(true);
    tasks.spawn(async move {
        sleep(long).await;
        chaos.set_away(false);
    });
}

async fn release_late(world: &World, random: &mut StdRng) {
    let all = world.all_faults();
    let Some(faults) = all.get(random.random_range(0..all.len().max(1))) else { return };
    let applied = faults.release().await;
    world.trace.line(&format!("{applied} late puts land"));
}

fn compact(world: &World, random: &mut StdRng, tasks: &mut JoinSet<()>) {
    let mut handle = None;
    world.with_live(random, |node| handle = node.handle());
    let Some(handle) = handle else { return };
    tasks.spawn(async move {
        let _whether = handle.call(handle.log.compact()).await;
    });
}

fn checkpoint(world: &World, random: &mut StdRng) {
    world.with_live(random, |node| {
        if let Some(log) = &node.log {
            log.request_checkpoint();
        }
    });
}
