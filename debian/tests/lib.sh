# What the tests share. Sourced with errors fatal; a test that ends early has failed.

unit=openclaw-gateway
settings=/etc/openclaw-gateway/openclaw.json

fail()
{
	echo "FAILED: $*" >&2
	systemctl status "$unit" --no-pager --full >&2 || :
	journalctl --unit="$unit" --lines=40 --no-pager >&2 || :
	exit 1
}

# Ask for the exact health answer on a port.
healthy()
{
	[ "$(curl --silent --max-time 10 "http://127.0.0.1:$1/healthz")" = '{"ok":true,"status":"live"}' ]
}

property()
{
	systemctl show --property="$2" --value "$1"
}

# Wait until a command succeeds, at most 60 s.
eventually()
{
	for _ in $(seq 600); do
		if "$@"; then return; fi
		sleep 0.1
	done
	fail "never: $*"
}

# Leave settings and service as they were found.
restore_settings()
{
	cp "$settings" "$AUTOPKGTEST_TMP/settings"
	trap 'cp "$AUTOPKGTEST_TMP/settings" "$settings"; systemctl reset-failed "$unit"; systemctl restart "$unit"' EXIT
}
