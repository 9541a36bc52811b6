//! `Host` and the authority of the target: the names that a service answers under.
use http::HeaderMap;
use http::header::HOST;

/// The names, in their one form.
pub struct Hosts {
    names: Vec<(String, Option<String>)>,
    https: bool,
}

/// Why a request is not for us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadHost {
    /// No `Host`, or more than one (RFC 9112 section 3.2).
    NotOne,
    /// Another's name.
    Foreign,
}

impl Hosts {
    /// `host` or `host:port` each; `https` says which port goes without saying.
    pub fn new<'a>(names: impl IntoIterator<Item = &'a str>, https: bool) -> Self {
        Self { names: names.into_iter().map(|name| canonical(name, https)).collect(), https }
    }

    /// Whether the one `Host`, and the target's authority where it has one, are names of ours. A target in absolute form
    /// speaks, whatever `Host` says (RFC 9112 section 3.2.2), so both must be.
    ///
    /// # Errors
    /// See [`BadHost`].
    pub fn check(&self, headers: &HeaderMap, authority: Option<&str>) -> Result<(), BadHost> {
        let mut hosts = headers.get_all(HOST).iter();
        let (Some(host), None) = (hosts.next(), hosts.next()) else { return Err(BadHost::NotOne) };
        let ours = host.to_str().is_ok_and(|host| self.knows(host))
            && authority.is_none_or(|authority| self.knows(authority));
        if ours { Ok(()) } else { Err(BadHost::Foreign) }
    }

    fn knows(&self, host: &str) -> bool {
        let host = canonical(host, self.https);
        self.names.contains(&host)
    }
}

/// Name and port. Names are compared without case and without the dot at the end, and the port that goes without saying is
/// none. What is no `name:port` is a name that nobody has.
fn canonical(host: &str, https: bool) -> (String, Option<String>) {
    let host = host.to_ascii_lowercase();
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if is_name(name) && port.bytes().all(|b| b.is_ascii_digit()) => (name, Some(port)),
        _ => (host.as_str(), None),
    };
    let port = port.filter(|port| *port != if https { "443" } else { "80" });
    (name.strip_suffix('.').unwrap_or(name).to_owned(), port.map(str::to_owned))
}

/// Colons stand only inside an address of IPv6, and that in brackets.
fn is_name(name: &str) -> bool {
    !name.contains(':') || (name.starts_with('[') && name.ends_with(']'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_compared_as_names() {
        for (a, b, https, same) in [
            ("Auth.Example", "auth.example", true, true),
            ("auth.example:443", "auth.example", true, true),
            ("auth.example.", "auth.example", true, true),
            ("auth.example:80", "auth.example", false, true),
            ("auth.example:80", "auth.example", true, false),
            ("auth.example:3002", "auth.example", false, false),
            ("auth.example.evil", "auth.example", true, false),
            ("[::1]:3002", "[::1]:3002", false, true),
            ("[::1]", "[::1]:80", false, true),
            ("127.0.0.1:3002:80", "127.0.0.1:3002", false, false),
            ("127.0.0.1:3002.", "127.0.0.1:3002", false, false),
            ("auth.example:", "auth.example", true, false),
        ] {
            assert_eq!(canonical(a, https) == canonical(b, https), same, "{a} {b}");
        }
    }

    #[test]
    fn one_host_and_every_name_ours() {
        let hosts = Hosts::new(["auth.example"], true);
        let check = |values: &[&str], authority| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(HOST, value.parse().unwrap());
            }
            hosts.check(&headers, authority)
        };
        assert_eq!(check(&["auth.example"], None), Ok(()));
        assert_eq!(check(&["auth.example"], Some("AUTH.example:443")), Ok(()));
        assert_eq!(check(&["auth.example"], Some("evil.example")), Err(BadHost::Foreign));
        assert_eq!(check(&["evil.example"], Some("auth.example")), Err(BadHost::Foreign));
        assert_eq!(check(&[""], None), Err(BadHost::Foreign));
        assert_eq!(check(&[], None), Err(BadHost::NotOne));
        assert_eq!(check(&["auth.example", "auth.example"], None), Err(BadHost::NotOne));
    }
}
