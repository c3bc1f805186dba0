# Fish completion for openclaw-gateway(8). Verbs, options and their values come from --help, so that there is
# no list here to go stale.

function __openclaw_gateway_complete
    set -l words (commandline -opc)
    set -l cur (commandline -ct)
    set -l verb
    if test (count $words) -gt 1
        set verb run
        string match -q -- '-*' $words[2]; or set verb $words[2]
    end
    switch $words[-1]
        case --config --token-file --password-file
            __fish_complete_path $cur
        case --state-dir
            __fish_complete_directories $cur
        case --log-level --priority -p
            printf '%s\n' error warning notice info debug
        case --bind --auth
            # The help has "--bind loopback|lan|…".
            $words[1] $verb --help 2>/dev/null | string replace -rf -- "^  $words[-1] ([a-z|-]+).*" '$1' | string split '|'
        case --port --host --profile '--*-timeout'
        case '*'
            if string match -q -- '-*' $cur
                $words[1] $verb --help 2>/dev/null | string match -ra -- '(?<![a-z-])--[a-z][a-z-]*' | sort -u
            else if test (count $words) -eq 1
                # argparse lists verbs by four spaces and a name.
                $words[1] --help 2>/dev/null | string replace -rf -- '^    ([a-z][a-z-]*)( .*)?$' '$1'
            end
    end
end

complete -c openclaw-gateway -f -a '(__openclaw_gateway_complete)'
