//! Faults of the store itself: a slot that moves, a master that dies, a Redis that hangs.

use super::*;
use crate::{stores::Watched, support::Store};

const BELL: &str = "{default/faulty}:bell";

/// Waits until so much is written, or the writer ended.
async fn until_written(written: &AtomicU64, events: u64, writer: &tokio::task::JoinHandle<()>) {
    while written.load(Ordering::SeqCst) < events && !writer.is_finished() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Asks until an answer holds what it must.
async fn until_said(server: &RedisServer, words: &[&str], expected: &str) {
    for _ in 0..1_500 {
        if server.cli(words).await.contains(expected) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!(
        "{words:?} did not say {expected} in 30 s: {}",
        server.cli(words).await
    );
}

/// The number in an answer such as `:12`, or of a bulk string.
fn number(answer: &str) -> u64 {
    let last = answer.lines().last().unwrap_or_default();
    last.trim_start_matches(':').parse().expect("a number")
}

/// How far a master or a replica is, in bytes of what is replicated.
async fn replicated(server: &RedisServer) -> u64 {
    let info = server.cli(&["INFO", "replication"]).await;
    let offset = info
        .lines()
        .find_map(|line| line.strip_prefix("master_repl_offset:"));
    offset.map_or(0, number)
}

/// Waits until the replica has what the master has now. One that is only being filled would be promoted with an empty log: a loss of everything,
/// which looks to viewers as if the log had expired.
async fn until_replicated(master: &RedisServer, replica: &RedisServer) {
    let written = replicated(master).await;
    assert!(written > 0, "the master told how far it is");
    for _ in 0..1_500 {
        if replicated(replica).await >= written {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the replica did not come as far as {written} in 30 s");
}

/// Every viewer saw just what is in the log, `fresh` being one who came after all; those who had seen what was lost were told.
fn assert_exact_or_told(seen: &[Seen], fresh: &[Seen], written: u64, last: u64) {
    assert_exact(seen, 1, last);
    for viewer in seen {
        let told = viewer.gaps.iter().all(|gap| gap.contains("replaced"));
        assert!(told && viewer.gaps.len() <= 1, "{:?}", viewer.gaps);
        // Events that were lost have other ids than those that took their numbers.
        assert!(
            fresh.iter().all(|fresh| fresh.ids == viewer.ids),
            "shown what is not in the log, and not told: {viewer:?}"
        );
    }
    if last == written {
        assert!(seen.iter().all(|viewer| viewer.gaps.is_empty()), "{seen:?}");
    }
}

/// The slot of a key, and which node of a cluster of three has it at first.
async fn slot_and_owner(nodes: &[RedisServer], key: &str) -> (u64, usize) {
    let slot = number(&nodes[0].cli(&["CLUSTER", "KEYSLOT", key]).await);
    (slot, usize::try_from(slot / 5_462).expect("small"))
}

async fn cluster_id(node: &RedisServer) -> String {
    let answer = node.cli(&["CLUSTER", "MYID"]).await;
    answer.lines().last().unwrap_or_default().to_owned()
}

/// A slot of a cluster of three on its way to the next node.
struct Moving<'a> {
    slot: String,
    from: &'a RedisServer,
    to: &'a RedisServer,
    other: &'a RedisServer,
    from_id: String,
    to_id: String,
}

impl<'a> Moving<'a> {
    async fn of(nodes: &'a [RedisServer], key: &str) -> Self {
        let (slot, owner) = slot_and_owner(nodes, key).await;
        let (from, to) = (&nodes[owner], &nodes[(owner + 1) % 3]);
        Self {
            slot: slot.to_string(),
            from,
            to,
            other: &nodes[(owner + 2) % 3],
            from_id: cluster_id(from).await,
            to_id: cluster_id(to).await,
        }
    }

    /// From now on the node it leaves answers `ASK` for keys that it does not have.
    async fn begin(&self) {
        let (slot, from_id, to_id) = (&self.slot, &self.from_id, &self.to_id);
        self.to
            .cli(&["CLUSTER", "SETSLOT", slot, "IMPORTING", from_id])
            .await;
        self.from
            .cli(&["CLUSTER", "SETSLOT", slot, "MIGRATING", to_id])
            .await;
    }

    /// Moves its keys, and tells all nodes whose it is.
    async fn end(&self) {
        let (from, slot) = (self.from, &self.slot);
        loop {
            let answer = from.cli(&["CLUSTER", "GETKEYSINSLOT", slot, "100"]).await;
            let keys: Vec<_> = answer.lines().filter(|line| line.contains('{')).collect();
            if keys.is_empty() {
                break;
            }
            // One at a time: between two of them the scripts find half of their keys here and half there.
            for key in keys {
                let port = self.to.port.to_string();
                let moved = from
                    .cli(&["MIGRATE", "127.0.0.1", &port, key, "0", "5000"])
                    .await;
                assert!(moved.starts_with('+'), "{moved}");
            }
        }
        for node in [self.to, from, self.other] {
            node.cli(&["CLUSTER", "SETSLOT", slot, "NODE", &self.to_id])
                .await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_redis_points_elsewhere_for_is_refused_for_a_moment_and_nothing_else_is() {
    let cluster = Store::cluster().await;
    let Store::Cluster(nodes) = &cluster else {
        panic!("a cluster");
    };
    let instance = Instance::with(config(&cluster.url())).await;
    let http = http();
    let post = async |trace: &str, event: &str| {
        let request = http.post(instance.url(&format!("/traces/{trace}/events")));
        let body = format!("{{\"event_type\":\"step\",\"event_id\":\"{event}\"}}");
        request.body(body).send().await.expect("answered").status()
    };
    // Of every node one, so that each of them is spoken to.
    let others: Vec<_> = (0..12).map(|n| format!("other-{n}")).collect();
    let moving = Moving::of(nodes, BELL).await;
    moving.begin().await;
    for round in 0..3 {
        assert_eq!(post(TRACE, "first").await, 503);
        for other in &others {
            assert_eq!(post(other, &format!("e{round}")).await, 200, "{other}");
        }
    }
    moving.end().await;
    let began = Instant::now();
    while post(TRACE, "first").await != 200 {
        assert!(began.elapsed() < Duration::from_secs(20), "found again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_moves_while_it_is_written_and_watched_takes_its_bell_along() {
    let cluster = Store::cluster().await;
    let Store::Cluster(nodes) = &cluster else {
        panic!("a cluster");
    };
    let moving = Moving::of(nodes, BELL).await;
    let scene = Scene::start(&cluster.url(), Weather::CALM).await;
    let enough = Arc::default();
    let viewers = scene.viewers(10, 0, &enough);
    let writing = scene.writing();
    let urls = writing.urls.clone();
    let written = Arc::clone(&writing.written);
    let writer = tokio::spawn(async move { write(&writing, 1, 3_000).await });
    until_written(&written, 500, &writer).await;
    moving.begin().await;
    moving.end().await;
    until_written(&written, 1_500, &writer).await;
    // The followers hear the bell where it rings now.
    until_said(moving.to, &["PUBSUB", "SHARDNUMSUB", BELL], ":2").await;
    writer.await.expect("written");
    end_run(&urls).await;
    let seen = viewers.join_all().await;
    assert_exact(&seen, 1, 3_001);
    assert!(seen.iter().all(|viewer| viewer.gaps.is_empty()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_whose_master_dies_goes_on_with_its_replica() {
    let mut cluster = Store::cluster().await;
    let url = cluster.url();
    let Store::Cluster(nodes) = &mut cluster else {
        panic!("a cluster");
    };
    let (_, owner) = slot_and_owner(nodes, BELL).await;
    let options = [
        "--save",
        "",
        "--cluster-enabled",
        "yes",
        "--cluster-node-timeout",
        "2000",
    ];
    let replica = RedisServer::start_with(&options).await;
    let port = nodes[owner].port.to_string();
    replica.cli(&["CLUSTER", "MEET", "127.0.0.1", &port]).await;
    let id = cluster_id(&nodes[owner]).await;
    until_said(&replica, &["CLUSTER", "NODES"], &id).await;
    until_said(&replica, &["CLUSTER", "REPLICATE", &id], "+OK").await;
    until_said(&replica, &["INFO", "replication"], "master_link_status:up").await;
    for node in nodes.iter() {
        until_said(node, &["CLUSTER", "NODES"], "slave").await;
    }

    let scene = Scene::start(&url, Weather::CALM).await;
    let enough = Arc::default();
    let viewers = scene.viewers(10, 0, &enough);
    let writing = scene.writing();
    let urls = writing.urls.clone();
    let written = Arc::clone(&writing.written);
    let writer = tokio::spawn(async move { write(&writing, 1, 1_500).await });
    until_written(&written, 500, &writer).await;
    until_replicated(&nodes[owner], &replica).await;
    nodes[owner].kill();
    writer.await.expect("written");
    end_run(&urls).await;
    let seen = viewers.join_all().await;
    let last = number(
        &replica
            .cli(&["HGET", "{default/faulty}:trace", "seq"])
            .await,
    );
    let fresh = scene.viewers(1, 0, &enough).join_all().await;
    assert_exact_or_told(&seen, &fresh, 1_501, last);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_dies_behind_a_sentinel_is_replaced_while_streams_go_on() {
    let mut watched = Watched::start().await;
    let scene = Scene::start(&watched.url(), Weather::CALM).await;
    let enough = Arc::default();
    let viewers = scene.viewers(10, 0, &enough);
    let writing = scene.writing();
    let urls = writing.urls.clone();
    let written = Arc::clone(&writing.written);
    let writer = tokio::spawn(async move { write(&writing, 1, 1_500).await });
    until_written(&written, 500, &writer).await;
    watched.sees_the_replica().await;
    until_replicated(&watched.master, &watched.replica).await;
    watched.master.kill();
    writer.await.expect("written");

    end_run(&urls).await;

    let seen = viewers.join_all().await;
    let answer = watched
        .replica
        .cli(&["HGET", "{default/faulty}:trace", "seq"])
        .await;
    let fresh = scene.viewers(1, 0, &enough).join_all().await;
    assert_exact_or_told(&seen, &fresh, 1_501, number(&answer));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_to_redis_that_carry_nothing_are_given_up_and_nothing_is_lost() {
    let redis = RedisServer::durable().await;
    let door = Proxy::to(
        SocketAddr::from(([127, 0, 0, 1], redis.port)),
        Weather::CALM,
    )
    .await;
    let scene = Scene::start(&format!("redis://{}", door.address), Weather::CALM).await;
    let enough = Arc::default();
    let viewers = scene.viewers(10, 0, &enough);
    let writing = scene.writing();
    let urls = writing.urls.clone();
    let written = Arc::clone(&writing.written);
    let writer = tokio::spawn(async move { write(&writing, 1, 2_000).await });
    for silent_at in [300, 800, 1_300] {
        until_written(&written, silent_at, &writer).await;
        door.silence_all();
        until_written(&written, silent_at + 100, &writer).await;
    }
    writer.await.expect("written");
    end_run(&urls).await;
    let seen = viewers.join_all().await;
    assert_exact(&seen, 1, 2_001);
    assert!(seen.iter().all(|viewer| viewer.gaps.is_empty()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_hangs_is_told_in_time_and_doubles_nothing_when_it_goes_on() {
    let redis = RedisServer::durable().await;
    let scene = Scene::start(&redis.url(), Weather::CALM).await;
    let enough = Arc::default();
    let viewers = scene.viewers(10, 0, &enough);
    let writing = scene.writing();
    let urls = writing.urls.clone();
    let written = Arc::clone(&writing.written);
    let writer = tokio::spawn(async move { write(&writing, 1, 1_500).await });
    for hang_at in [300, 900] {
        until_written(&written, hang_at, &writer).await;
        redis.signal("STOP");
        // Answered while it hangs: the client would give up after 20 s.
        let during = http()
            .post(&urls[0])
            .body("{\"event_type\":\"step\",\"event_id\":\"e1\"}")
            .send();
        let answer = during.await.expect("answered in time");
        assert_eq!(answer.status(), 503);
        assert!(answer.headers().contains_key("retry-after"));
        redis.signal("CONT");
    }
    writer.await.expect("written");
    end_run(&urls).await;
    let seen = viewers.join_all().await;
    assert_exact(&seen, 1, 1_501);
    assert!(seen.iter().all(|viewer| viewer.gaps.is_empty()));
}
