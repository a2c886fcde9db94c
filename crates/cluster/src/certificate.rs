//! What a node's certificate says: of which cluster it is, which services it runs, how long.
//!
//! Every service of a node is a URI name, `linnet://<cluster>/<service>`; host names play no part, so a node may move.

use linnet_types::UnixMillis;

use crate::service::Service;

const SCHEME: &str = "linnet://";
const AUTHORITY: &str = "authority";

/// The words of a certificate. Says nothing about who signed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster it is for.
    pub cluster: String,
    /// The services its node runs, sorted.
    pub services: Vec<Service>,
}

/// When a certificate is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// Not before.
    pub from: UnixMillis,
    /// Not after.
    pub until: UnixMillis,
}

/// The URI name of `service` in a certificate for `cluster`.
#[must_use]
pub fn uri(cluster: &str, service: Service) -> String {
    format!("{SCHEME}{cluster}/{service}")
}

/// The URI name of the authority of `cluster`.
#[must_use]
pub fn authority_uri(cluster: &str) -> String {
    format!("{SCHEME}{cluster}/{AUTHORITY}")
}

/// The cluster whose authority a certificate (DER) is; `None` when it is something else.
#[must_use]
pub fn cluster(der: &[u8]) -> Option<String> {
    let der = der.into();
    let certificate = webpki::EndEntityCert::try_from(&der).ok()?;
    let (cluster, last) = certificate.valid_uri_names().find_map(|name| name.strip_prefix(SCHEME)?.split_once('/'))?;
    (last == AUTHORITY).then(|| cluster.to_owned())
}

impl Identity {
    /// Reads a certificate (DER).
    ///
    /// # Errors
    /// What is wrong with it, for the operator.
    pub fn read(der: &[u8]) -> Result<Self, String> {
        let der = der.into();
        let certificate = webpki::EndEntityCert::try_from(&der).map_err(|why| format!("not a certificate: {why}"))?;
        let mut services = Vec::new();
        let mut clusters = Vec::new();
        for name in certificate.valid_uri_names() {
            let Some((cluster, service)) = name.strip_prefix(SCHEME).and_then(|rest| rest.split_once('/')) else {
                continue;
            };
            clusters.push(cluster.to_owned());
            // A service of a later build means nothing here.
            services.extend(Service::parse(service));
        }
        services.sort_unstable();
        services.dedup();
        clusters.dedup();
        match clusters.len() {
            0 => Err("no name of the form linnet://<cluster>/<service>".to_owned()),
            1 if services.is_empty() => Err("names no service this build knows".to_owned()),
            1 => Ok(Self { cluster: clusters.remove(0), services }),
            _ => Err("names more than one cluster".to_owned()),
        }
    }
}

impl Validity {
    /// Reads a certificate (DER); `None` when it is none.
    #[must_use]
    pub fn read(der: &[u8]) -> Option<Self> {
        let certificate = Der(der).element()?.content(SEQUENCE)?;
        let mut body = Der(Der(certificate).element()?.content(SEQUENCE)?);
        let first = body.element()?;
        // Version 1 names no version; then this was the serial number.
        if first.tag == VERSION {
            body.element()?;
        }
        let (_algorithm, _issuer) = (body.element()?, body.element()?);
        let mut times = Der(body.element()?.content(SEQUENCE)?);
        Some(Self { from: times.element()?.time()?, until: times.element()?.time()? })
    }
}

const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// Elements of an encoding, one after the other.
struct Der<'a>(&'a [u8]);

struct Element<'a> {
    tag: u8,
    content: &'a [u8],
}

impl<'a> Der<'a> {
    fn element(&mut self) -> Option<Element<'a>> {
        let (&[tag, first], rest) = self.0.split_first_chunk()?;
        let (len, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            0x81..=0x84 => {
                let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                (digits.iter().fold(0, |len, &digit| len << 8 | usize::from(digit)), rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(len)?;
        self.0 = rest;
        Some(Element { tag, content })
    }
}

impl<'a> Element<'a> {
    fn content(&self, tag: u8) -> Option<&'a [u8]> {
        (self.tag == tag).then_some(self.content)
    }

    /// `YYMMDDHHMMSSZ` or `YYYYMMDDHHMMSSZ`.
    fn time(&self) -> Option<UnixMillis> {
        let text = str::from_utf8(self.content).ok()?.strip_suffix('Z')?;
        let number = |at: usize, len: usize| text.get(at..at + len)?.parse::<i64>().ok();
        let (year, at) = match self.tag {
            // Two digits stand for 1950 to 2049.
            UTC_TIME => (number(0, 2).map(|year| if year < 50 { 2000 + year } else { 1900 + year })?, 2),
            GENERALIZED_TIME => (number(0, 4)?, 4),
            _ => return None,
        };
        let days = days(year, number(at, 2)?, number(at + 2, 2)?);
        let seconds = days * 86_400 + number(at + 4, 2)? * 3600 + number(at + 6, 2)? * 60 + number(at + 8, 2)?;
        Some(UnixMillis(u64::try_from(seconds).ok()?.checked_mul(1000)?))
    }
}

/// Days since 1970 of a date of our calendar (years begin in March here, so that the odd day is the last).
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_count_from_1970() {
        assert_eq!((days(1970, 1, 1), days(2000, 2, 29), days(2000, 3, 1)), (0, 11_016, 11_017));
        assert_eq!((days(2026, 11, 24), days(2100, 3, 1)), (20_781, 47_541));
    }

    #[test]
    fn rubbish_is_no_certificate() {
        for bytes in [&b""[..], b"\x30", b"\x30\x84\xff\xff\xff\xff", b"\x30\x03\x30\x01\x00", b"hello"] {
            assert_eq!(Validity::read(bytes), None);
            assert!(Identity::read(bytes).is_err());
        }
    }

    #[test]
    fn both_forms_of_time() {
        let read = |tag, text: &'static str| Element { tag, content: text.as_bytes() }.time().map(|time| time.secs());
        assert_eq!(read(UTC_TIME, "261124133000Z"), Some(1_795_527_000));
        assert_eq!(read(GENERALIZED_TIME, "20261124133000Z"), Some(1_795_527_000));
        assert_eq!(read(UTC_TIME, "2611241330Z"), None);
        assert_eq!(read(0x16, "261124133000Z"), None);
    }
}
