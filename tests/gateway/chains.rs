//! Client certificate chains, good and bad, over real handshakes of both TLS versions: the verdict
//! of each, and the reason that the log gives.

use crate::certificates::{ask, write_ca};
use crate::partner::{Pair, Partner, day, named};
use crate::world::{World, until};
use flowgate::crypto::trust::{Revocation, Trust};
use flowgate::crypto::x509::{self, Certificate};
use rcgen::string::{BmpString, PrintableString, TeletexString, UniversalString};
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, DnValue, ExtendedKeyUsagePurpose as Eku,
    GeneralSubtree, IsCa, KeyPair, KeyUsagePurpose as Ku, NameConstraints, PKCS_ECDSA_P256_SHA256,
    PKCS_ECDSA_P384_SHA384, PKCS_ECDSA_P521_SHA512, PKCS_ED25519, PKCS_RSA_SHA256, PKCS_RSA_SHA384, PKCS_RSA_SHA512,
    SanType, SerialNumber, SignatureAlgorithm,
};
use rustls::version::{TLS12, TLS13};
use std::process::Command;

const FINE: &str = "";
const OWN: &[u64] = &[1, 3, 6, 1, 4, 1, 99_999, 1];
const POLICIES: &[u64] = &[2, 5, 29, 32];
const POLICY: &[u8] = &[0x30, 0x06, 0x30, 0x04, 0x06, 0x02, 0x2a, 0x03];

/// What is trusted, and what is issued below it.
struct Parties {
    root: Partner,
    /// Trusted itself, its root is not.
    lower: Partner,
    ended: Partner,
    early: Partner,
    listed: Partner,
    outdated: Partner,
    spelled: Partner,
    /// Like `root` by name, with another key.
    namesake: Partner,
    stranger: Partner,
}

impl Parties {
    fn new() -> Self {
        let printable = |text: &str| DnValue::PrintableString(PrintableString::try_from(text).expect("printable"));
        Self {
            root: Partner::new("root"),
            lower: Partner::new("unknown root").below("lower", |_| ()),
            ended: Partner::with("ended", |ca| ca.not_after = day(-1)),
            early: Partner::with("early", |ca| ca.not_before = day(1)),
            listed: Partner::new("listed"),
            outdated: Partner::new("outdated"),
            spelled: Partner::with("spelled", |ca| {
                ca.distinguished_name = rcgen::DistinguishedName::new();
                ca.distinguished_name.push(DnType::CommonName, printable("Spelled CA"));
            }),
            namesake: Partner::new("root"),
            stranger: Partner::new("stranger"),
        }
    }

    fn trusted(&self) -> [&Partner; 7] {
        [&self.root, &self.lower, &self.ended, &self.early, &self.listed, &self.outdated, &self.spelled]
    }

    fn crls(&self) -> [String; 2] {
        [self.listed.crl(&[77], 10), self.outdated.crl(&[], -1)]
    }
}

/// A chain with its name and what is said of it: nothing if it is fine.
type Case = (String, Pair, &'static str);

/// Every kind of key, with no intermediate and with up to two.
fn keys(parties: &Parties, out: &mut Vec<Case>) {
    let algorithms: [(&str, &SignatureAlgorithm); 7] = [
        ("P-256", &PKCS_ECDSA_P256_SHA256),
        ("P-384", &PKCS_ECDSA_P384_SHA384),
        ("P-521", &PKCS_ECDSA_P521_SHA512),
        ("Ed25519", &PKCS_ED25519),
        ("RSA with SHA-256", &PKCS_RSA_SHA256),
        ("RSA with SHA-384", &PKCS_RSA_SHA384),
        ("RSA with SHA-512", &PKCS_RSA_SHA512),
    ];
    let one = parties.root.below("one", |_| ());
    let two = one.below("two", |_| ());
    for (name, algorithm) in algorithms {
        let key = KeyPair::generate_for(algorithm).expect("a key");
        let fine = |issuer: &Partner, more: &[&str]| issuer.client_of(&key, |_| ()).behind(more);
        out.push((format!("{name} below the root"), fine(&parties.root, &[]), FINE));
        out.push((format!("{name} below one intermediate"), fine(&one, &[&one.pem]), FINE));
        out.push((format!("{name} below two intermediates"), fine(&two, &[&two.pem, &one.pem]), FINE));
    }
}

/// How the presented list may look.
fn lists(parties: &Parties, out: &mut Vec<Case>) {
    let mut path = vec![parties.root.below("1", |_| ())];
    for depth in 2..=7 {
        let next = path[path.len() - 1].below(&depth.to_string(), |_| ());
        path.push(next);
    }
    for depth in 3..=7 {
        let pems: Vec<_> = path[..depth].iter().rev().map(|ca| ca.pem.as_str()).collect();
        let said = if depth > 6 { "its path does not verify" } else { FINE };
        out.push((format!("{depth} intermediates"), path[depth - 1].client(|_| ()).behind(&pems), said));
    }
    let (one, two) = (&path[0], &path[1]);
    let leaf = two.client(|_| ());
    let rest = |count: usize| vec![parties.stranger.pem.as_str(); count].concat();
    let garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let twin = parties.root.below("1", |_| ());
    let third = parties.root.below("1", |_| ());
    for (name, more, said) in [
        ("in the wrong order", vec![one.pem.as_str(), &two.pem], FINE),
        ("each twice", vec![&two.pem, &two.pem, &one.pem, &one.pem], FINE),
        ("with the root", vec![&two.pem, &one.pem, &parties.root.pem], FINE),
        ("with a stranger between", vec![&parties.stranger.pem, &two.pem, &one.pem], FINE),
        ("with an entry that is no certificate", vec![&two.pem, garbage, &one.pem], FINE),
        ("with a twin of an intermediate", vec![&two.pem, &twin.pem, &one.pem], FINE),
        ("with three of one name", vec![&two.pem, &twin.pem, &third.pem, &one.pem], "share the subject CN=1"),
        ("without its intermediate", vec![&one.pem], "the issuer CN=2 is neither trusted nor among"),
        ("without the upper intermediate", vec![&two.pem], "the issuer CN=1 is neither trusted nor among"),
        ("nine of them", vec![&two.pem, &one.pem, &rest(6)], "9 certificates were presented"),
    ] {
        out.push((name.to_owned(), leaf.behind(&more), said));
    }
    let big = parties.root.client(|leaf| {
        let names = (0..3_000).map(|n| SanType::DnsName(format!("host-{n}.example").try_into().expect("a name")));
        leaf.subject_alt_names = names.collect();
    });
    out.push(("of 50 KB".into(), big, "at most 49152 are looked at"));
}

/// What the leaf itself says.
fn leaves(parties: &Parties, out: &mut Vec<Case>) {
    let mut add = |name: &str, said, change: &dyn Fn(&mut CertificateParams)| {
        out.push((name.to_owned(), parties.root.client(change), said));
    };
    add("expired", "it has expired", &|leaf| leaf.not_after = day(-1));
    add("not yet valid", "it is not yet valid", &|leaf| leaf.not_before = day(1));
    add("a life that ends before it begins", "it has expired", &|leaf| {
        (leaf.not_before, leaf.not_after) = (day(5), day(4));
    });
    add("until the year 9999", FINE, &|leaf| leaf.not_after = rcgen::date_time_ymd(9999, 12, 31));
    add("no extended key usage", "lacks clientAuth", &|leaf| leaf.extended_key_usages.clear());
    add("serverAuth alone", "lacks clientAuth", &|leaf| leaf.extended_key_usages = vec![Eku::ServerAuth]);
    add("anyExtendedKeyUsage alone", "lacks clientAuth", &|leaf| leaf.extended_key_usages = vec![Eku::Any]);
    add("codeSigning alone", "lacks clientAuth", &|leaf| leaf.extended_key_usages = vec![Eku::CodeSigning]);
    add("clientAuth and serverAuth", FINE, &|leaf| leaf.extended_key_usages = vec![Eku::ServerAuth, Eku::ClientAuth]);
    add("no key usage at all", FINE, &|leaf| leaf.key_usages.clear());
    add("key usage with keyEncipherment", FINE, &|leaf| leaf.key_usages.push(Ku::KeyEncipherment));
    add("no digitalSignature", "lacks digitalSignature", &|leaf| leaf.key_usages = vec![Ku::KeyEncipherment]);
    add("a CA", "marked as a CA", &|leaf| leaf.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
    add("no basicConstraints", FINE, &|leaf| leaf.is_ca = IsCa::NoCa);
    add("no subject", "it has no subject", &|leaf| leaf.distinguished_name = rcgen::DistinguishedName::new());
    add("serial number zero", FINE, &|leaf| leaf.serial_number = Some(SerialNumber::from_slice(&[0])));
    add("a serial number of 30 bytes", FINE, &|leaf| leaf.serial_number = Some(SerialNumber::from_slice(&[0x41; 30])));
    add("alternative names", FINE, &|leaf| {
        leaf.subject_alt_names = vec![SanType::DnsName("a.example".try_into().expect("a name"))];
    });
    let extension = |oid: &'static [u64], content: &'static [u8], critical| {
        move |leaf: &mut CertificateParams| {
            let mut extension = CustomExtension::from_oid_content(oid, content.to_vec());
            extension.set_criticality(critical);
            leaf.custom_extensions.push(extension);
        }
    };
    add("an unknown extension", FINE, &extension(OWN, &[5, 0], false));
    add("an unknown critical extension", "its path does not verify", &extension(OWN, &[5, 0], true));
    add("policies", FINE, &extension(POLICIES, POLICY, false));
    add("critical policies", "its path does not verify", &extension(POLICIES, POLICY, true));
    add(
        "alternative names that cannot be read",
        "malformed or there twice",
        &extension(&[2, 5, 29, 17], &[1, 2, 3], false),
    );
    add("an extension twice", "malformed or there twice", &|leaf| {
        extension(OWN, &[5, 0], false)(leaf);
        extension(OWN, &[5, 0], false)(leaf);
    });
}

/// How the subject is written.
fn subjects(parties: &Parties, out: &mut Vec<Case>) {
    let mut add = |name: &str, said, change: &dyn Fn(&mut CertificateParams)| {
        out.push((name.to_owned(), parties.root.client(change), said));
    };
    let call = |value: DnValue| {
        move |leaf: &mut CertificateParams| {
            leaf.distinguished_name = rcgen::DistinguishedName::new();
            leaf.distinguished_name.push(DnType::CommonName, value.clone());
        }
    };
    add("a PrintableString", FINE, &call(DnValue::PrintableString(PrintableString::try_from("a").expect("text"))));
    add("a BMPString", FINE, &call(DnValue::BmpString(BmpString::try_from("\u{fc}").expect("text"))));
    add("a UniversalString", FINE, &call(DnValue::UniversalString(UniversalString::try_from("\u{fc}").expect("text"))));
    add("a TeletexString", FINE, &call(DnValue::TeletexString(TeletexString::try_from("a").expect("text"))));
    add("NUL in the subject", FINE, &call(DnValue::Utf8String("a\0b".into())));
    add("a subject of 4 KB", FINE, &call(DnValue::Utf8String("a".repeat(4_096))));
    add("a subject of many parts", FINE, &|leaf| {
        for part in ["a", "b", "c"] {
            leaf.distinguished_name.push(DnType::OrganizationalUnitName, part);
        }
        leaf.distinguished_name.push(DnType::CountryName, "DE");
    });
}

/// What stands above the leaf.
fn issuers(parties: &Parties, out: &mut Vec<Case>) {
    let mut add = |name: &str, said, change: &dyn Fn(&mut CertificateParams)| {
        let ca = parties.root.below("between", change);
        out.push((format!("intermediate: {name}"), ca.client(|_| ()).behind(&[&ca.pem]), said));
    };
    add("expired", "or a CA above it has", &|ca| ca.not_after = day(-1));
    add("not yet valid", "or a CA above it is not", &|ca| ca.not_before = day(1));
    add("ends before its leaf", FINE, &|ca| ca.not_after = day(2));
    add("may not sign", "the issuer CN=between is neither trusted nor among", &|ca| ca.key_usages = vec![Ku::CrlSign]);
    add("says nothing of signing", FINE, &|ca| ca.key_usages.clear());
    add("is no CA", "the issuer CN=between is neither trusted nor among", &|ca| ca.is_ca = IsCa::ExplicitNoCa);
    add("for serverAuth alone", "lacks clientAuth", &|ca| ca.extended_key_usages = vec![Eku::ServerAuth]);
    add("for clientAuth", FINE, &|ca| ca.extended_key_usages = vec![Eku::ClientAuth]);
    let constrained = |permitted: Vec<GeneralSubtree>| {
        move |ca: &mut CertificateParams| {
            let (permitted_subtrees, excluded_subtrees) = (permitted.clone(), Vec::new());
            ca.name_constraints = Some(NameConstraints { permitted_subtrees, excluded_subtrees });
        }
    };
    add("for names of a domain", FINE, &constrained(vec![GeneralSubtree::DnsName("example".into())]));
    add(
        "for a directory name",
        "its path does not verify",
        &constrained(vec![GeneralSubtree::DirectoryName(named("x"))]),
    );

    let dns = |name: &'static str| {
        move |leaf: &mut CertificateParams| {
            leaf.subject_alt_names = vec![SanType::DnsName(name.try_into().expect("a name"))];
        }
    };
    let ca = parties.root.below("of a domain", constrained(vec![GeneralSubtree::DnsName("example".into())]));
    out.push(("a name in the domain".into(), ca.client(dns("a.example")).behind(&[&ca.pem]), FINE));
    out.push((
        "a name outside the domain".into(),
        ca.client(dns("a.test")).behind(&[&ca.pem]),
        "its path does not verify",
    ));
    let many = parties.root.below("of many domains", |ca| {
        let domains = (0..200).map(|n| GeneralSubtree::DnsName(format!("d{n}.example")));
        ca.name_constraints =
            Some(NameConstraints { permitted_subtrees: domains.collect(), excluded_subtrees: Vec::new() });
    });
    let named_often = many.client(|leaf| {
        let names = (0..200).map(|n| SanType::DnsName(format!("a.d{n}.example").try_into().expect("a name")));
        leaf.subject_alt_names = names.collect();
    });
    out.push(("200 names below 200 constraints".into(), named_often.behind(&[&many.pem]), "too many to compare"));
    let short = parties.root.below("short", |ca| ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)));
    let long = short.below("long", |_| ());
    out.push((
        "a path that is too long".into(),
        long.client(|_| ()).behind(&[&long.pem, &short.pem]),
        "its path does not verify",
    ));
}

/// Which CA vouches.
fn anchors(parties: &Parties, out: &mut Vec<Case>) {
    let plain = |name: &str, partner: &Partner, said| (name.to_owned(), partner.client(|_| ()), said);
    out.push(plain("a lower CA that is trusted itself", &parties.lower, FINE));
    out.push(plain("a CA that has ended", &parties.ended, "or a CA above it has"));
    out.push(plain("a CA that has not begun", &parties.early, "or a CA above it has"));
    out.push(plain("a CA of the same name with another key", &parties.namesake, "another CA of the same name"));
    out.push(plain("a stranger", &parties.stranger, "the issuer CN=stranger is neither trusted nor among"));
    let brought = parties.stranger.client(|_| ()).behind(&[&parties.stranger.pem]);
    out.push(("a stranger that brings its root".into(), brought, "CN=stranger"));
    let spelled = Partner::with("x", |ca| ca.distinguished_name = named("spelled ca"));
    out.push(plain("a CA whose name is written otherwise", &spelled, "written in another encoding"));
    let serial =
        |serial: u64| move |leaf: &mut CertificateParams| leaf.serial_number = Some(SerialNumber::from(serial));
    out.push(("not on the revocation list".into(), parties.listed.client(serial(76)), FINE));
    out.push(("on the revocation list".into(), parties.listed.client(serial(77)), "on the revocation list"));
    out.push(plain("a revocation list that is outdated", &parties.outdated, "has passed its next update"));
    let mut bad = parties.root.client(|_| ());
    bad.chain = tampered(&bad.chain);
    out.push(("a signature that was tampered with".into(), bad, "another CA of the same name"));
    // the client's library takes no such key, and the certificate is refused before the key is used
    let short =
        Pair { key: parties.root.client(|_| ()).key, chain: by_openssl(&parties.root, "rsa:1024", "-sha256").chain };
    out.push(("an RSA key of 1024 bits".into(), short, "an RSA key of 1024 bits"));
    out.push(("signed with SHA-1".into(), by_openssl(&parties.root, "rsa:2048", "-sha1"), "its path does not verify"));
}

/// One bit of the signature flipped.
fn tampered(pem: &str) -> String {
    let mut der = x509::chain(pem).expect("one")[0].to_vec();
    let last = der.len() - 1;
    der[last] ^= 1;
    flowgate::crypto::keyring::pem("CERTIFICATE", &der)
}

/// A certificate of a kind that the other tool does not make.
fn by_openssl(issuer: &Partner, key: &str, digest: &str) -> Pair {
    let dir = tempfile::tempdir().expect("a folder");
    let file = |name: &str| dir.path().join(name).to_str().expect("a path").to_owned();
    std::fs::write(file("ca"), &issuer.pem).expect("written");
    std::fs::write(file("ca-key"), issuer.key()).expect("written");
    let usages = "basicConstraints=critical,CA:FALSE\nkeyUsage=digitalSignature\nextendedKeyUsage=clientAuth\n";
    std::fs::write(file("usages"), usages).expect("written");
    let openssl = |arguments: &[&str]| {
        let output = Command::new("openssl").args(arguments).output().expect("openssl runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let (k, r, c) = (file("k"), file("r"), file("c"));
    openssl(&["req", "-new", "-nodes", "-newkey", key, "-subj", "/CN=old", "-keyout", &k, "-out", &r]);
    let signing = ["x509", "-req", "-in", &r, "-CA", &file("ca"), "-CAkey", &file("ca-key"), "-set_serial", "99"];
    openssl(&[&signing[..], &[digest, "-days", "9", "-extfile", &file("usages"), "-out", &c]].concat());
    let read = |name: &str| std::fs::read_to_string(name).expect("made");
    Pair { chain: read(&c), key: read(&k) }
}

#[test]
fn every_chain_has_its_verdict_and_reason_on_both_versions_of_tls() {
    let parties = Parties::new();
    let mut cases = Vec::new();
    for group in [keys, lists, leaves, subjects, issuers, anchors] {
        group(&parties, &mut cases);
    }
    assert!(cases.len() >= 80, "{} chains", cases.len());

    let world = World::new();
    let all: String = parties.trusted().iter().map(|ca| ca.pem.as_str()).collect();
    let first = cases[0].1.clone();
    std::fs::write(world.file("certs/trusted-cas/partners.crl"), parties.crls().concat()).expect("written");
    write_ca(&world, &all);
    until("the CAs are believed", || world.tls(Some(&first)).is_ok_and(|mut stream| ask(&mut stream, "").is_some()));
    until("they are the whole list", || {
        world.tls(Some(&cases[cases.len() - 1].1)).is_ok_and(|mut stream| ask(&mut stream, "").is_none())
    });

    let read = |text: &str| x509::chain(text).expect("a chain");
    let authorities = read(&all).iter().map(|der| Certificate::from_der(der).expect("reads")).collect();
    let crls = parties.crls().iter().flat_map(|text| x509::crls(text).expect("lists")).collect();
    let trust = Trust::new(authorities, crls, Revocation::default()).expect("fit");
    let now = jiff::Timestamp::now().as_second();
    let mut wrong = Vec::new();
    for (name, pair, said) in &cases {
        let reason =
            trust.verify(&read(&pair.chain), now).map_or_else(|distrust| distrust.to_string(), |_| String::new());
        if reason.is_empty() != said.is_empty() || !reason.contains(said) {
            wrong.push(format!("{name}: expected `{said}`, got `{reason}`"));
        }
        for (version, tls) in [(&TLS12, "1.2"), (&TLS13, "1.3")] {
            let through = world.tls_of(Some(pair), &[version]).is_ok_and(|mut stream| ask(&mut stream, "").is_some());
            if through != said.is_empty() {
                wrong.push(format!("{name}, TLS {tls}: through is {through}, expected `{said}`"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}
