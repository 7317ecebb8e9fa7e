use super::*;
use crate::config::Rate;
use crate::redis_link::test_server::RedisServer;
use crate::shutdown::Shutdown;

/// Compares the script with `Gcra::take`, step by step, on a simulated clock.
#[tokio::test]
async fn the_script_decides_as_the_code_does() {
    let server = RedisServer::start();
    let commands = Commands::start(&server.url(), "test", &Shutdown::new()).unwrap();
    assert!(commands.wait_up(Duration::from_secs(10)).await);
    let source = include_str!("../take.lua").replace("redis.call('TIME')", "{ARGV[6], ARGV[7]}");
    assert_ne!(source, include_str!("../take.lua"));
    let script = Script::new(&source);
    for (index, rate) in [
        // Slow enough that no key expires on the real clock during the test.
        Rate { count: 50, per: Duration::from_secs(3600), burst: 50 },
        Rate { count: 7, per: Duration::from_secs(3600), burst: 3 },
        Rate { count: 11, per: Duration::from_secs(7200), burst: 1 },
        Rate { count: 1, per: Duration::from_secs(86400), burst: 20 },
    ]
    .into_iter()
    .enumerate()
    {
        let gcra = Gcra::from(rate);
        let (mut full_at, mut now, mut refusals) = (0, 1_764_000_000_123_456, 0);
        let (count, has_debt) = (u64::from(rate.burst), index % 2 == 1);
        for step in 0..300u64 {
            // Those of usage owe, and those of actions do not.
            let demand = match (has_debt, step % 5) {
                (false, _) => Demand::ACTION,
                (true, 4) => Demand::charge(step % (3 * count)),
                (true, _) => Demand::CHECK,
            };
            let mut call = script.prepare_invoke();
            call.key(format!("bucket:{index}")).arg(gcra.interval).arg(gcra.tolerance);
            call.arg(demand.needed).arg(demand.taken).arg(u8::from(demand.has_debt));
            call.arg(now / 1_000_000).arg(now % 1_000_000);
            let (allowed, wait): (bool, u64) = commands.invoke(&call).await.unwrap();
            let expected = gcra.take(demand, &mut full_at, now);
            assert_eq!(verdict(allowed, Duration::from_micros(wait)), expected, "{rate:?} {step}");
            refusals += u64::from(!allowed);
            if step == 150 {
                // This is a bucket of another rate, or of a clock that was ahead.
                full_at = now + 10 * gcra.tolerance;
                let mut set = redis::cmd("SET");
                set.arg(format!("bucket:{index}")).arg(full_at);
                let () = commands.query(&set).await.unwrap();
            }
            // Uneven steps around the interval, so that both answers occur.
            now += gcra.interval * (step * 7919 % 17) / 16;
        }
        assert!((1..299).contains(&refusals), "{rate:?} {refusals}");
    }
}
