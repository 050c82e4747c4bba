"""Writes data/template_golden.json: templates with the text transformers renders from them.

Each case is one construct that published chat templates use. Run it with the transformers version whose behaviour is wanted.
"""

import json
from pathlib import Path

import transformers

MESSAGES = [
    {"role": "system", "content": " Be brief.\n"},
    {"role": "user", "content": "Hello <b>\"you\"</b> & 'me' — naïve 🙂"},
    {"role": "assistant", "content": "<think>plan</think>Fine.\r\n\x1f"},
    {"role": "user", "content": ""},
    {"role": "assistant", "content": "one,two,,three"},
    {"role": "user", "content": "last one  "},
]
NESTED = (
    "{'name': 'naïve \"quoted\" <tag> \\'x\\' & \\\\ \\n\\t', 'emoji': '🙂', 'list': [1, -2, 3.5, 1e16, 1e-7, true, false, none],"
    " 'empty': {}, 'none': [], 'deep': {'b': [{'z': 1, 'a': [[], {}]}], 'a': 'é'},}"
)
CASES = {
    "loop_variables": """
{%- for message in messages %}
{{ loop.index }}/{{ loop.length }} {{ loop.index0 }} {{ loop.revindex0 }} {% if loop.first %}first{% elif loop.last %}last{% else %}middle{% endif %}:
    {%- if loop.previtem is defined %} after {{ loop.previtem.role }}{% endif %}
    {%- if not loop.last %} before {{ loop.nextitem['role'] }}{% endif %}

{% endfor %}
""",
    "namespace_and_nested_loops": """
{% set ns = namespace(count=0, last=none) %}
{% for message in messages if message.role == 'user' %}
  {% for c in message.content[:3] %}{% set ns.count = ns.count + 1 %}{{ ns.count }}{{ c }}{% endfor %}
  {% set ns.last = message.content | length %}
{% endfor %}
count={{ ns.count }} last={{ ns.last }}
""",
    "slices": """
{%- for message in messages[::-1] %}{{ message.role[0] }}{% endfor %}|
{%- for message in messages[1:] %}{{ message.role[-1] }}{% endfor %}|
{%- for message in messages[1:-1:2] %}{{ message.role[1:3] }}{% endfor %}|{{ 'naïve🙂'[::-1] }}|{{ messages[-1].role }}
{%- if messages[0].role == 'system' %}{% set rest = messages[1:] %}{% else %}{% set rest = messages %}{% endif %}|{{ rest | length }}
""",
    "tojson": "{% set x = " + NESTED + " %}{{ x | tojson }}\n{{ x | tojson(indent=2) }}\n{{ x | tojson(ensure_ascii=true) }}\n"
    "{{ x | tojson(sort_keys=true, separators=(',', ':')) }}\n{{ x | tojson(indent=4, sort_keys=True) }}\n"
    "{{ messages[1].content | tojson }}{{ messages | tojson }}{{ tools | tojson }}{{ {7: 'a', none: 2, true: 3, 1.5: 4} | tojson }}"
    "{{ [0.0, 0.1, 0.0001, 0.00001, 1e15, 1.25e100, 123456789012345678901234567890] | tojson(indent=0) }}",
    "definedness": """
{%- if tools is defined %}tools{% endif %}{% if tools is none %} none{% endif %}{% if tools %} some{% endif %}
{%- if nothing is defined %}x{% else %} undefined{% endif %}{% if nothing is undefined %} so{% endif %}[{{ nothing }}]
{%- if messages[0].tool_calls is defined %}calls{% else %} no calls{% endif %}
{%- if messages[0]['content'] is string %} string{% endif %}{% if messages is iterable and messages is not mapping %} list{% endif %}
{%- if messages[0] is mapping %} mapping{% endif %}{% if 1 is number %} number{% endif %}{% if true is boolean %} boolean{% endif %}
{%- if date_string is not defined %}{% set date_string = '26 Jul 2024' %}{% endif %} {{ date_string }} {{ nothing | default('d') }} {{ '' | default('e', true) }}
""",
    "string_methods": """
{%- for message in messages %}
[{{ message.content.strip() }}] [{{ message.content | trim }}] [{{ message.content.lstrip() }}] [{{ message.content.rstrip() }}] [{{ message.content.rstrip('\\n e') }}]
{{ message.content.startswith('<think>') }} {{ message.content.endswith(('.', 'e  ')) }} {{ message.content.split(',') }} {{ message.content.split() }}
{{ message.content.replace('e', 'E') }} {{ message.content.upper() }} {{ message.role.title() }} {{ message.content.find('one') }} {{ message.content.count('o') }}
{%- if '</think>' in message.content %} after: {{ message.content.split('</think>')[-1].lstrip('\\n') }}{% endif %}
{% endfor %}
{{- '-'.join(['a', 'b']) }} {{ 'a b'.split(' ', 1)[1] }} {{ "x" ~ 1 ~ none ~ true }} {{ 'ab' * 3 }} {{ 'abc' | length }} {{ '%s=%d' | format('k', 3) }}
""",
    "dict_methods": "{% set d = {'b': 1, 'a': {'x': [1, 2]}, 'c': 'é',} %}{% for key, value in d.items() %}{{ key }}={{ value }};{% endfor %}"
    "{{ d.get('b') }}{{ d.get('q') }}{{ d.get('q', 7) }}{{ d.keys() | list }}{{ d.values() | list }}{{ d }}{{ d['a']['x'][0] }}"
    "{{ 'b' in d }}{{ 'q' not in d }}{% for key in d %}{{ key }}{% endfor %}{% for k, v in d | dictsort %}{{ k }}{% endfor %}{{ d | items | list }}",
    "macros": """
{% macro turn(role, content='nothing', end=true) -%}
<{{ role }}>{{ content | trim }}{% if end %}</{{ role }}>{% endif %}
{%- endmacro %}
{% for message in messages %}
{{ turn(message.role, message.content) }}{{ turn('x', end=false) }}
{% endfor %}
{% macro caller_macro() %}[{{ caller() }}]{% endmacro %}
{% call caller_macro() %}inside{% endcall %}
""",
    "generation": """
{% set kept = 'outer' %}
{% for message in messages %}
  {% if message.role == 'assistant' %}
    {% generation %}
    {% set kept = 'inner' %}
    {{ message.content }}{{ kept }}
    {% endgeneration %}
  {% else %}
{{ message.content }}{%- generation -%}  x {%- endgeneration %}
  {% endif %}
{% endfor %}
{{ kept }}
""",
    "loop_controls": """
{% for message in messages %}
{% if message.content == '' %}{% continue %}{% endif %}
{% if loop.index0 == 4 %}{% break %}{% endif %}
{{ message.role }}
{% else %}
never
{% endfor %}
{% for x in [] %}{% else %}empty{% endfor %}
""",
    "white_space": "  {% if true %}  \n  a  \n\n  {% endif %}\n{{ 'b' }}\n  {#- gone -#}  \n  c {%- if true +%}\n d{% endif %}\n"
    "\t{%+ if true %}e{% endif %}\n{# comment #}\n{{ 'f\n' }}\n{%- set x = 1 %}\n\n",
    "filters": "{{ messages | map(attribute='role') | join(',') }} {{ messages | selectattr('role', 'equalto', 'user') | list | length }} "
    "{{ messages | rejectattr('role', '==', 'user') | map(attribute='role') | list }} {{ [3, 1, 2] | sort | first }} {{ [1, 2] | last }} "
    "{{ 'a,b' | replace(',', ';') | upper }} {{ '  x ' | trim }} {{ 'line\nline' | indent(2) }} {{ 3.7 | int }} {{ '5' | int + 1 }} "
    "{{ [1, 2, 2] | unique | list }} {{ [none, 'x', true, 1.0, 'it\\'s'] }} {{ (1, 'a') }} {{ 7 // 2 }} {{ 7 / 2 }} {{ 2 ** 3 }} {{ -7 % 3 }} {{ 1 if false else 2 }}",
    "special_tokens": "{{ bos_token }}|{{ eos_token }}|{{ pad_token }}|{{ unk_token is defined }}|{{ add_generation_prompt }}|{{ documents is none }}",
    "raise_exception": "{% macro check(m) %}{% if m.role == 'system' %}{{ raise_exception('Roles must alternate: ' ~ m.role) }}{% endif %}{% endmacro %}"
    "{% for m in messages %}{{ check(m) }}{% endfor %}",
    "carriage_returns": "a\r\n{% if true %}\r\n  b\r\n{% endif %}\r\nc\rd",
}


def main() -> None:
    data = Path(__file__).parent / "data"
    tokenizer = transformers.AutoTokenizer.from_pretrained(data / "tiny")
    cases = []
    for name, template in CASES.items():
        for add_generation_prompt in (False, True) if name == "special_tokens" else (False,):
            case = {"name": name, "template": template, "add_generation_prompt": add_generation_prompt}
            try:
                case["text"] = tokenizer.apply_chat_template(
                    MESSAGES, chat_template=template, tokenize=False, add_generation_prompt=add_generation_prompt
                )
            except Exception as error:
                if name != "raise_exception":
                    raise
                case["raises"] = str(error)
            cases.append(case)
    golden = {"transformers": transformers.__version__, "messages": MESSAGES, "cases": cases}
    (data / "template_golden.json").write_text(json.dumps(golden, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
