use super::*;

#[test]
fn an_ipv6_network_and_an_ipv4_address_are_one_client_each() {
    for (ip, prefix, network) in [
        ("192.0.2.1", 64, "192.0.2.1"),
        ("::ffff:192.0.2.1", 64, "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", 64, "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", 64, "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", 56, "2001:db8:1::/56"),
        ("2001:db8:1:2::9", 128, "2001:db8:1:2::9/128"),
        ("2001:db8:1:2::9", 0, "::/0"),
    ] {
        assert_eq!(ClientNetwork::of(ip.parse().unwrap(), prefix).to_string(), network, "{ip}");
    }
}
