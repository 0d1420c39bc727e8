// The configurations that name modules: what each syntax finds, and what it passes over.
#include <algorithm>

#include "catch.h"
#include "jailer/closure/plugin_syntax.h"

using namespace jail;

namespace {

const PluginSyntax& syntax(const char* name) {
  const PluginSyntax* found = plugin_syntax(name);
  REQUIRE(found != nullptr);
  return *found;
}

std::vector<std::string> files_of(const char* name, const std::vector<ConfigText>& configs) {
  std::vector<std::string> files;
  for (const PluginName& plugin : syntax(name).names(configs)) files.push_back(plugin.file);
  return files;
}

std::vector<std::string> files_of(const char* name, const std::string& text,
                                  const std::string& path = "/etc/x/config") {
  return files_of(name, std::vector<ConfigText>{{path, text}});
}

using Words = std::vector<std::string>;

}  // namespace

TEST_CASE("nsswitch.conf: services, without their actions") {
  CHECK(files_of("nsswitch",
                 "# comment: sss\npasswd: files systemd\n\nhosts:files [!UNAVAIL=return] dns # ldap\n"
                 "netgroup: nis [ NOTFOUND = return ] db\nnonsense\n") ==
        Words{"files", "systemd", "files", "dns", "nis", "db"});
}

TEST_CASE("pam.d: modules and includes") {
  const std::string text =
      "#%PAM-1.0\n"
      "@include common-account\n"
      "auth [success=1 default=ignore] pam_unix.so nullok\n"
      "-session optional pam_systemd.so\n"
      "auth substack password-auth\n"
      "account include /etc/pam.d/other\n"
      "password required \\\n  /opt/pam_x.so use_authtok\n"
      "auth required\n";
  CHECK(files_of("pam", text) == Words{"pam_unix.so", "pam_systemd.so", "/opt/pam_x.so"});
  const auto names = syntax("pam").names({{"/etc/pam.d/x", text}});
  CHECK_FALSE(names[0].optional);
  CHECK(names[1].optional);
  CHECK(syntax("pam").includes({"/etc/pam.d/x", text}) ==
        Words{"/etc/pam.d/common-account", "/etc/pam.d/password-auth", "/etc/pam.d/other"});
}

TEST_CASE("openssl.cnf: the providers that are active, across included files") {
  const ConfigText main{"/etc/ssl/openssl.cnf",
                        "HOME = .\nopenssl_conf = init # the first\n.include /etc/ssl/more.cnf\n"
                        ".include = conf.d\n[init]\nproviders = provs\nengines = engs\n"
                        "[engs]\npkcs11 = p11\n[p11]\ndynamic_path = \"/usr/lib/e/pkcs11.so\"\n"};
  const ConfigText more{"/etc/ssl/more.cnf",
                        "[ provs ]\ndefault = d\nlegacy = l\nfips = f\nodd = o\ntpm = t\n[d]\nactivate = 1\n"
                        "[l]\nactivate = yes\n[f]\nactivate = 0\n[t]\nmodule = /opt/tpm.so\nactivate = 1\n"};
  CHECK(files_of("openssl-providers", {main, more}) == Words{"default", "legacy", "/opt/tpm.so"});
  CHECK(syntax("openssl-providers").names({main, more})[1].from == 1);
  CHECK(files_of("openssl-engines", {main}) == Words{"/usr/lib/e/pkcs11.so"});
  CHECK(files_of("openssl-providers", {main}).empty());  // the section is in the other file
  CHECK(syntax("openssl-providers").includes(main) == Words{"/etc/ssl/more.cnf", "/etc/ssl/conf.d"});
  CHECK(files_of("openssl-providers", "[provs]\nlegacy = l\n[l]\nactivate = 1\n")
            .empty());  // nothing leads there
}

TEST_CASE("dynamicmaps.cf, p11-kit, SASL") {
  CHECK(files_of("dynamicmaps", "# type so open\nsqlite postfix-sqlite.so dict_sqlite_open\nbroken x\n") ==
        Words{"postfix-sqlite.so"});
  CHECK(files_of("p11-kit", "module: p11-kit-trust.so\npriority: 1\n",
                 "/usr/share/p11-kit/modules/a.module") == Words{"p11-kit-trust.so"});
  CHECK(files_of("p11-kit", "module: x.so\n", "/usr/share/p11-kit/modules/README").empty());
  CHECK(files_of("sasl",
                 "pwcheck_method: auxprop\nauxprop_plugin: sasldb\nmech_list: PLAIN CRAM-MD5 SCRAM-SHA-256\n"
                 "sasl_mech_list: GSSAPI\n") == Words{"sasldb", "plain", "crammd5", "scram", "gssapiv2"});
}

TEST_CASE("dovecot.conf: plugins, and what it includes") {
  const std::string text =
      "#mail_plugins = acl\nmail_plugins = quota zlib\n!include conf.d/*.conf\n!include_try /etc/local.conf\n"
      "protocol imap {\n  mail_plugins = $mail_plugins imap_quota\n}\nprotocol lda { mail_plugins = sieve "
      "}\n";
  CHECK(files_of("dovecot", text) == Words{"quota", "zlib", "imap_quota", "sieve"});
  CHECK(syntax("dovecot").includes({"/etc/dovecot/dovecot.conf", text}) ==
        Words{"/etc/dovecot/conf.d/*.conf", "/etc/local.conf"});
}

TEST_CASE("named.conf: plugin, dyndb and dlz, not in comments and strings") {
  const std::string text =
      "// plugin query \"a.so\"\n# plugin query \"b.so\"\n/* plugin query \"c.so\" */\n"
      "options { version \"plugin query d.so\"; };\n"
      "plugin query \"filter-aaaa.so\" { filter-aaaa-on-v4 yes; };\n"
      "dyndb \"sample\" \"/opt/sample.so\" { nothing };\n"
      "dlz \"samba\" { database \"dlopen /usr/lib/dlz_bind9_18.so -H x\"; };\n"
      "include \"named.conf.local\"; include \"/etc/bind/zones\";";
  CHECK(files_of("bind", text) == Words{"filter-aaaa.so", "/opt/sample.so", "/usr/lib/dlz_bind9_18.so"});
  CHECK(syntax("bind").includes({"/etc/bind/named.conf", text}) ==
        Words{"/etc/bind/named.conf.local", "/etc/bind/zones"});
}

TEST_CASE("no syntax minds bytes that mean nothing") {
  using namespace std::string_literals;
  const std::string odd = "\0[\n:\n=\n{ \"\n/*\n@include\n\\\n!include\nplugin plugin \"\n.include\n["s;
  for (const std::string& name : plugin_syntaxes()) {
    CAPTURE(name);
    for (std::size_t length = 0; length <= odd.size(); ++length) {
      const ConfigText config{"/etc/x.module", odd.substr(0, length)};
      (void)syntax(name.c_str()).includes(config);
      for (const PluginName& plugin : syntax(name.c_str()).names({config, config})) CHECK(plugin.from < 2);
    }
  }
  CHECK(plugin_syntax("nss") == nullptr);
}
