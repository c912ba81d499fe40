//! An authority of this run of the tests, whose certificates every client here trusts.

use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion, version};

use crate::harness::Options;

/// What the clients trust.
pub(crate) static AUTHORITY: LazyLock<Authority> = LazyLock::new(Authority::new);

pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// Certificate and key in files, and the certificate itself.
pub(crate) struct Issued {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) der: CertificateDer<'static>,
}

impl Authority {
    /// One that nobody knows.
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new([]).expect("no names are valid names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key can be made");
        Self(CertifiedIssuer::self_signed(params, key).expect("the parameters are valid"))
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for this machine, written to `server.pem` and `server.key` in `dir`, each by a rename.
    pub(crate) fn issue(&self, dir: &Path) -> Issued {
        let key = KeyPair::generate().expect("a key can be made");
        let params = CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()]).expect("valid names");
        let issued = params.signed_by(&key, &self.0).expect("the parameters are valid");
        let put = |name: &str, text: String| {
            let (path, fresh) = (dir.join(name), dir.join(format!(".{name}")));
            std::fs::write(&fresh, text).expect("the directory can be written");
            std::fs::rename(&fresh, &path).expect("on the same disk");
            path
        };
        let key = put("server.key", key.serialize_pem());
        Issued { cert: put("server.pem", issued.pem()), key, der: issued.der().clone() }
    }

    /// TLS of a client that trusts this authority alone.
    pub(crate) fn client(&self, versions: &[&'static SupportedProtocolVersion], alpn: &[&str]) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).expect("a certificate of our own");
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let config = config.with_protocol_versions(versions).expect("they are known").with_root_certificates(roots);
        let mut config = config.with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }

    /// The same with all versions and HTTP/1.1.
    pub(crate) fn http1(&self) -> Arc<ClientConfig> {
        self.client(&[&version::TLS13, &version::TLS12], &["http/1.1"])
    }
}

impl Issued {
    /// How to start a server with it.
    pub(crate) fn options(&self) -> Options {
        let path = |path: &Path| path.to_str().expect("UTF-8").to_owned();
        let env =
            vec![("PLINTH_TLS_CERT".to_owned(), path(&self.cert)), ("PLINTH_TLS_KEY".to_owned(), path(&self.key))];
        Options { env, ..Options::default() }
    }
}
