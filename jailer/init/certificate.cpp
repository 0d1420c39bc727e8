#include "jailer/init/certificate.h"

#include <arpa/inet.h>

#include <array>

#include "jailer/init/program.h"
#include "jailer/manifest/codec.h"
#include "supervisor/base/companion.h"
#include "supervisor/base/quote.h"

namespace jail::init {
namespace {

/// "DNS:mail.example.test", "IP:192.0.2.25".
Result<std::string> alternative_name(const std::string& host) {
  std::array<unsigned char, 16> address{};
  for (const int family : {AF_INET, AF_INET6})
    if (::inet_pton(family, host.c_str(), address.data()) == 1) return "IP:" + host;
  std::string name;
  if (!manifest::Hostname::read(host, name).empty())
    return with_hint(fail(Exit::usage, "{} is neither a host name nor an address", quote(host)),
                     "name the host that clients connect to: --test-certificate=mail.example.test");
  return "DNS:" + name;
}

}  // namespace

Result<Pair> make_test_certificate(const std::string& host, const std::string& key_pem) {
  JAIL_TRY(own_name, alternative_name(host));
  const std::string names = own_name + (host == "localhost" ? "" : ",DNS:localhost") + ",IP:127.0.0.1,IP:::1";
  JAIL_TRY(own, own_program());
  JAIL_TRY(program, companion(own, "jail-certificate"));
  JAIL_TRY(done, run_path(program, {host, names}, key_pem));
  if (done.status == static_cast<int>(Exit::config))
    return with_hint(fail(Exit::config, "{}", escape(done.output)), "move it away, and a new one is made");
  const std::size_t cert = done.output.find("-----BEGIN CERTIFICATE");
  if (done.status != 0 || cert == std::string::npos)
    return fail(Exit::internal, "{}: exit status {}: {}", program, done.status, escape(done.output));
  const std::string what = fmt::format(
      "TEST CERTIFICATE for {}, made by jail init: for trying, trusted by nobody. "
      "Put one of a real authority here.\n",
      host);
  return Pair{"The key of a " + what + done.output.substr(0, cert),
              "A " + what + done.output.substr(cert) + "\n"};
}

}  // namespace jail::init
