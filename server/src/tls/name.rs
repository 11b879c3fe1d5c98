//! The name in a client's certificate.

use rustls::pki_types::CertificateDer;
use x509_parser::parse_x509_certificate;

/// The common name of the subject of a certificate, if it has exactly one.
pub fn subject_name(certificate: &CertificateDer<'_>) -> Option<Box<str>> {
    let (_, certificate) = parse_x509_certificate(certificate).ok()?;
    let mut names = certificate.subject().iter_common_name();
    let name = names.next()?.as_str().ok()?;
    names.next().is_none().then(|| name.into())
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair};

    use super::*;

    #[test]
    fn the_subject_name_of_a_certificate_is_read_and_anything_else_has_none() {
        let key = KeyPair::generate().expect("a key");
        let mut parameters = CertificateParams::new(vec!["host".into()]).expect("a host");
        parameters.distinguished_name.push(DnType::CommonName, "ann");
        parameters.distinguished_name.push(DnType::OrganizationName, "ours");
        let certificate = parameters.self_signed(&key).expect("a certificate");
        assert_eq!(subject_name(certificate.der()).as_deref(), Some("ann"));
        let mut unnamed = CertificateParams::new(vec!["host".into()]).expect("a host");
        unnamed.distinguished_name = rcgen::DistinguishedName::new();
        let certificate = unnamed.self_signed(&key).expect("a certificate");
        assert_eq!(subject_name(certificate.der()), None);
        assert_eq!(subject_name(&CertificateDer::from(vec![1, 2, 3])), None);
    }
}
