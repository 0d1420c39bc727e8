"""Every shipped service needs all that its manifest grants: with one capability, one group of system calls or one call
fewer its work fails; with all of them it works, and the filter refuses nothing of it."""

import pwd

import pytest

import dhcphouse
import least_privilege
from audit import Denials

CLONE3, SETGID = 435, 106
# Where it shows that a privilege is missing: the step of the service's workload that fails without it.
NEEDED = {
    "named": {
        "net_bind_service": "start",
        "@default": "start",
        "@network-server": "start",
        "@file-replace": "signatures",
    },
    "dhcpd": {
        "net_raw": "start",
        "net_bind_service": "start",
        "@default": "start",
        "@network-client": "start",
        "@file-replace": "log",  # it serves, and a crash of the machine loses the leases
    },
    "dhcpd6": {
        "net_bind_service": "start",
        "@default": "start",
        "@network-client": "start",
        "@file-replace": "lease",
    },
    "dhcrelay": {
        "net_raw": "start",
        "net_bind_service": "start",
        "@default": "start",
        "@network-client": "start",
    },
    "smtpd": {
        "setuid": "start",
        "setgid": "start",
        "net_bind_service": "start",
        "dac_read_search": "start",
        "@default": "start",
        "@network-server": "start",
        "@file-replace": "start",
        "mkdir": "delivery",
        "chmod": "start",
        "wait4": "reload",
        "@set-id": "start",
    },
    "imapd": {
        "@default": "start",
        "@network-server": "start",
        "@file-write": "start",
        "wait4": "a hundred logins",
        "setuid": "start",
        "fchown": "mailboxes",
    },
}
# Granted for the sake of the audit log alone, which without them tells of a refused call at each login.
FOR_THE_LOG = {("imapd", "setgid"): SETGID}
TRIALS = [(service, privilege) for service in least_privilege.SERVICES for privilege in NEEDED[service]]


@pytest.fixture(scope="module")
def whole():
    """The manifests as they are: {trial: result}, and what their filters refused meanwhile."""
    with Denials() as denials:
        found = least_privilege.attempts([(service, None) for service in least_privilege.SERVICES])
        return found, denials.take_all()


@pytest.fixture(scope="module")
def reduced(whole):
    """By one privilege each: {trial: result}"""
    return least_privilege.attempts(TRIALS)


def test_the_table_is_the_manifests():
    granted = {(service, privilege) for service in least_privilege.SERVICES for privilege in least_privilege.privileges(service)}
    assert granted == {*TRIALS, *FOR_THE_LOG}


@pytest.mark.parametrize("service", least_privilege.SERVICES)
def test_with_all_of_them_it_works(whole, service):
    result = whole[0][service, None]
    assert result.step is None, f"{result}\n{result.why}"


def test_and_its_filter_refuses_nothing(whole):
    ours = {pwd.getpwnam(user).pw_uid for user in ("bind", "mail", "postfix")} | set(dhcphouse.uids())
    refused = {(user, program, call) for user, program, call in whole[1] if user in ours or program in ("master", "virtual")}
    assert {(program, call) for _, program, call in refused} <= {("named", CLONE3)}


@pytest.mark.parametrize("service,privilege", TRIALS)
def test_with_one_fewer_it_fails(reduced, service, privilege):
    result = reduced[service, privilege]
    print(f"{service} without {privilege}: {result}")
    assert result.step is not None, f"{service} never needs {privilege}: take it out of the manifest"
    assert result.step == NEEDED[service][privilege], result.why


@pytest.mark.parametrize("service,privilege", FOR_THE_LOG)
def test_what_is_granted_for_the_audit_log(service, privilege):
    with Denials() as denials:
        result = least_privilege.attempts([(service, privilege)], steps=3)[service, privilege]
        refused = {call for _, call in denials.take(pwd.getpwnam("mail").pw_uid)}
    assert result.step is None, result.why
    assert refused == {FOR_THE_LOG[service, privilege]}
