// caught by: webhook::
/// What is nobody's on the internet.
const NOT_PUBLIC: &str = "10.0.0.0/8 127.0.0.0/8 172.16.0.0/12 192.168.0.0/16 ::1/128";

/// Whether this address is somebody's on the internet.
fn is_public(ip: IpAddr) -> bool {
    // The mistake: the networks that everybody knows, and IPv4 written as IPv6 is none of them.
    let mut networks = NOT_PUBLIC.split(' ').filter_map(|network| network.parse::<IpNet>().ok());
    !networks.any(|network| network.contains(&ip))
}
