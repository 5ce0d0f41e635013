//! The command line: definitions, dispatch, exit codes. Data goes to stdout, all else to stderr;
//! secrets and tokens are never arguments.

mod admin;
mod certificates;
mod connectivity;
mod credential;
mod demo;
mod destination;
mod echo;
mod kit;
mod output;
mod postman;
mod run;
mod token;

use crate::config::fault::Faults;
use crate::domain::instance::Plan;
use crate::domain::name::{ArtifactName, InstanceName, KeyName, RoleName};
use crate::serve::handover::Handed;
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use output::Format;
use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

/// Inbound OAuth gateway: issues client-credentials tokens and lets a call through only with the
/// route's user role.
#[derive(Debug, Parser)]
#[command(name = "flowgate", version, max_term_width = 100)]
struct Cli {
    /// The configuration file.
    #[arg(long, global = true, default_value = "config.yaml", value_name = "FILE")]
    config: PathBuf,
    /// How listings are shown.
    #[arg(long, global = true, default_value = "table", value_name = "FORMAT")]
    output: Format,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway.
    Serve,
    /// Validate the configuration: every fault at once, each with its place and the remedy.
    Check {
        /// Print the JSON Schema of the configuration instead.
        #[arg(long, conflicts_with = "at")]
        schema: bool,
        /// Name all that will have ended by a day (2027-01-31 or +30d) and what breaks; fails if
        /// there is anything.
        #[arg(long, value_name = "DAY")]
        at: Option<String>,
    },
    /// Make what is missing in DIR, start an echo flow and serve; prints the curl lines to copy.
    Demo {
        #[arg(long, default_value = ".", value_name = "DIR")]
        dir: PathBuf,
    },
    /// User roles.
    #[command(subcommand)]
    Role(RoleCommand),
    /// Service instances: one OAuth client definition each.
    #[command(subcommand)]
    Instance(InstanceCommand),
    /// Service keys: one credential of an instance each.
    #[command(subcommand)]
    Key(KeyCommand),
    /// CAs that may vouch for client certificates.
    #[command(subcommand)]
    TrustedCa(TrustedCaCommand),
    /// Access tokens.
    #[command(subcommand)]
    Token(TokenCommand),
    /// Keys that sign access tokens.
    #[command(subcommand)]
    SigningKey(SigningKeyCommand),
    /// Outbound credentials, which routes call their backends with.
    #[command(subcommand)]
    Credential(CredentialCommand),
    /// Destinations, which programs look up by name.
    #[command(subcommand)]
    Destination(DestinationCommand),
    /// See what a TLS server shows to those who connect, and save its certificates.
    ConnectivityTest(ConnectivityTest),
    /// Write a Postman collection and environment (v2.1) for a service key.
    Postman {
        /// The service key, as `key create` printed it.
        #[arg(long, value_name = "KEY.json")]
        key: PathBuf,
        #[arg(long, default_value = ".", value_name = "DIR")]
        out: PathBuf,
    },
    /// Print a completion script.
    Completion { shell: Shell },
}

#[derive(Debug, Args)]
struct ConnectivityTest {
    /// A host name, without scheme and path.
    #[arg(value_name = "HOST[:PORT]")]
    target: String,
    /// Save the certificates, the root included where it can be found.
    #[arg(long, value_name = "certificates.zip")]
    out: Option<PathBuf>,
    /// Succeed even if the server's certificate is not valid here.
    #[arg(long)]
    no_verify: bool,
    /// A client certificate to present, with its intermediates (PEM).
    #[arg(long, value_name = "F", requires = "client_key")]
    client_certificate: Option<PathBuf>,
    /// Its private key (PEM).
    #[arg(long, value_name = "F", requires = "client_certificate")]
    client_key: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum RoleCommand {
    /// Create a user role.
    Create {
        name: RoleName,
        #[arg(long, default_value = "", value_name = "T")]
        description: String,
    },
    /// List all roles.
    List,
    /// Change a role's description.
    Update {
        name: RoleName,
        #[arg(long, value_name = "T")]
        description: String,
    },
    /// Delete a role that no instance uses.
    Delete { name: RoleName },
}

#[derive(Debug, Args)]
struct InstanceSettings {
    /// User roles, separated by commas.
    #[arg(long, value_delimiter = ',', value_name = "A,B")]
    roles: Option<Vec<RoleName>>,
    /// Seconds that an access token lives, 3600 to 86400.
    #[arg(long, value_name = "S")]
    token_validity: Option<i64>,
    /// Bind access tokens to the client certificate that they were got with (RFC 8705).
    #[arg(long, value_name = "BOOL", action = clap::ArgAction::Set)]
    certificate_bound_access_tokens: Option<bool>,
    /// CAs that alone may vouch for this client's certificates; may be repeated.
    #[arg(long, value_name = "F.pem")]
    trusted_ca: Option<Vec<PathBuf>>,
    /// The model's JSON: {"roles":[..],"grant-types":[..],"token-validity":..}
    #[arg(long, value_name = "F.json")]
    parameters: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum InstanceCommand {
    /// Create a service instance.
    Create {
        name: InstanceName,
        #[arg(long, default_value = "integration-flow", value_name = "P")]
        plan: Plan,
        #[command(flatten)]
        settings: InstanceSettings,
    },
    /// List all instances.
    List,
    /// Show an instance; with --output json also what the XSUAA libraries want.
    Show { name: InstanceName },
    /// Change what is named; the rest stays.
    Update {
        name: InstanceName,
        #[command(flatten)]
        settings: InstanceSettings,
    },
    /// Delete an instance that has no keys.
    Delete { name: InstanceName },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum KeyType {
    ClientidSecret,
    Certificate,
    #[value(name = "certificate_external")]
    CertificateExternal,
}

#[derive(Debug, Subcommand)]
enum KeyCommand {
    /// Create a key and print it, once.
    Create {
        instance: InstanceName,
        name: KeyName,
        /// The model's JSON, such as {"key-type":"certificate","validity":365,"key-length":2048}
        #[arg(long, value_name = "F.json", conflicts_with = "key_type")]
        parameters: Option<PathBuf>,
        #[arg(long, value_name = "TYPE", default_value = "clientid-secret")]
        key_type: KeyType,
        /// Days that an issued certificate lives, 1 to 365.
        #[arg(long, value_name = "DAYS", default_value_t = 365)]
        validity: i64,
        /// Bits of an issued certificate's RSA key: 2048, 3072 or 4096.
        #[arg(long, value_name = "BITS", default_value_t = 2048)]
        key_length: i64,
        /// The sender's own certificate, for certificate_external.
        #[arg(long, value_name = "F.pem")]
        certificate: Option<PathBuf>,
        /// Accept exactly this certificate.
        #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
        pin_certificate: bool,
        /// Write all that the sender needs into DIR besides: key, certificates, PKCS#12, Postman
        /// files and a script that calls.
        #[arg(long, value_name = "DIR")]
        kit: Option<PathBuf>,
    },
    /// List keys, of one instance or of all.
    List { instance: Option<InstanceName> },
    /// Show a key, without its secret.
    Show { instance: InstanceName, name: KeyName },
    /// Delete a key; what was got with it ends within a second.
    Delete { instance: InstanceName, name: KeyName },
    /// Take over a service key that SAP Integration Suite displayed.
    Import {
        instance: InstanceName,
        name: KeyName,
        #[arg(long, value_name = "KEY.json")]
        file: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
enum TrustedCaCommand {
    /// List the trusted CAs, flowgate's own included.
    List,
    /// Hold a certificate against the rules one by one: would it be accepted, as which key, and if
    /// not, why.
    Inspect {
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Get an access token with a service key and print it.
    Get {
        /// The service key, as `key create` printed it.
        #[arg(long, value_name = "KEY.json")]
        key: PathBuf,
        /// CAs to trust in place of the system's (PEM).
        #[arg(long, value_name = "F.pem")]
        cacert: Option<PathBuf>,
    },
    /// Read a token from stdin and tell what it says and whether this gateway signed it.
    Inspect,
}

#[derive(Debug, Subcommand)]
enum CredentialCommand {
    /// Create an OAuth2 Client Credentials or Authorization Code artifact.
    Create {
        /// The model's fields as JSON, the client secret among them.
        #[arg(long, value_name = "F.json")]
        parameters: PathBuf,
    },
    /// Change what is named; the secret must be given again if it could now go elsewhere.
    Update {
        #[arg(long, value_name = "F.json")]
        parameters: PathBuf,
    },
    /// List all credentials with how they fare.
    List,
    /// Show a credential, without its secrets.
    Show { name: ArtifactName },
    /// Print the address at which a user authorises the credential, and wait for the callback.
    Authorize {
        name: ArtifactName,
        /// Do not wait.
        #[arg(long)]
        no_wait: bool,
    },
    /// Print an access token that can be used, fetched if need be.
    Token { name: ArtifactName },
    /// Fetch a new access token now.
    Refresh { name: ArtifactName },
    /// Delete a credential that no route uses.
    Delete { name: ArtifactName },
}

/// Whose a destination is.
#[derive(Debug, Args)]
struct LevelArguments {
    #[arg(long, value_name = "LEVEL", default_value = "subaccount")]
    level: LevelWord,
    /// The service instance that alone sees it.
    #[arg(long, value_name = "I")]
    instance: Option<InstanceName>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LevelWord {
    Subaccount,
    Instance,
}

#[derive(Debug, Subcommand)]
enum DestinationCommand {
    /// Store a destination, fragment or certificate, in place of the one of its name; or all files
    /// of a folder.
    Put {
        /// The model's flat properties as JSON (one or a list), an exported file (Name=..), or a
        /// certificate file (.pem, .crt, .cer, .p12, .pfx).
        #[arg(long, value_name = "D.json")]
        file: PathBuf,
        #[command(flatten)]
        level: LevelArguments,
    },
    /// List all destinations, fragments and certificates.
    List,
    /// Show the properties, without secrets.
    Get {
        name: String,
        #[command(flatten)]
        level: LevelArguments,
    },
    /// Look a destination up as a program would; prints secrets and the token.
    Find {
        name: String,
        /// The authorization code, for OAuth2AuthorizationCode.
        #[arg(long, value_name = "C")]
        code: Option<String>,
        #[arg(long, value_name = "U")]
        redirect_uri: Option<String>,
        #[arg(long, value_name = "V")]
        code_verifier: Option<String>,
        /// Look on this service instance's level first.
        #[arg(long, value_name = "I")]
        instance: Option<InstanceName>,
    },
    /// Delete a destination, fragment or certificate.
    Delete {
        name: String,
        #[command(flatten)]
        level: LevelArguments,
    },
}

#[derive(Debug, Subcommand)]
enum SigningKeyCommand {
    /// List the signing keys with their phases.
    List,
    /// Publish a new key, which signs after the lead time of two hours.
    Rotate {
        /// Sign with it at once: after a leak, since verifiers may still cache the old key set.
        #[arg(long)]
        now: bool,
    },
    /// Drop a key at once: tokens that it signed are refused within a second.
    Purge { kid: String },
}

type Outcome = Result<(), Failure>;

/// Why a command did not do its work.
#[derive(Debug)]
enum Failure {
    /// Exit code 1.
    Failed(Box<dyn Error>),
    /// Exit code 3.
    Configuration(Faults),
}

impl<E: Error + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Failed(Box::new(error))
    }
}

impl Failure {
    fn text(message: impl Into<String>) -> Self {
        Self::Failed(message.into().into())
    }
}

/// The process's own set-up, then the command.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    // the environment is changed by taking them, which is safe while there is one thread
    let handed = Handed::from_env();
    // which cryptography the JWT library uses: one of its two globals, set once, here
    let _ = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("no runtime: {error}"), 1),
    };
    match runtime.block_on(dispatch(cli, handed)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Failed(error)) => fail(&error.to_string(), 1),
        Err(Failure::Configuration(faults)) => {
            eprint!("{faults}");
            fail(&format!("the configuration has {} errors", faults.errors()), 3)
        }
    }
}

fn fail(message: &str, code: u8) -> ExitCode {
    eprintln!("error: {message}");
    ExitCode::from(code)
}

async fn dispatch(cli: Cli, handed: Handed) -> Outcome {
    let Cli { config, output, command } = cli;
    match command {
        Command::Serve => run::serve(config, handed).await,
        Command::Check { schema: true, .. } => output::json(&crate::config::file::schema()),
        Command::Check { at: Some(day), .. } => certificates::outlook(&config, output, &day).await,
        Command::Check { .. } => run::check(&config),
        Command::Demo { dir } => demo::run(&dir).await,
        Command::Completion { shell } => {
            clap_complete::generate(
                shell,
                &mut <Cli as clap::CommandFactory>::command(),
                "flowgate",
                &mut std::io::stdout(),
            );
            Ok(())
        }
        Command::Token(TokenCommand::Get { key, cacert }) => token::get(&key, cacert.as_deref()).await,
        Command::Token(TokenCommand::Inspect) => token::inspect(&config).await,
        Command::Postman { key, out } => postman::write(&config, &key, &out),
        Command::Role(command) => admin::role(&config, output, command).await,
        Command::Instance(command) => admin::instance(&config, output, command).await,
        Command::Key(command) => admin::key(&config, output, command).await,
        Command::TrustedCa(TrustedCaCommand::List) => certificates::list(&config, output).await,
        Command::TrustedCa(TrustedCaCommand::Inspect { file }) => certificates::inspect(&config, output, &file).await,
        Command::Credential(command) => credential::run(&config, output, command).await,
        Command::Destination(command) => destination::run(&config, output, command).await,
        Command::ConnectivityTest(test) => connectivity::run(test).await,
        Command::SigningKey(command) => admin::signing_key(&config, output, command).await,
    }
}
