// A frame as a line, in the words of the explain view: `tcp 198.51.100.7:4000 > 203.0.113.5:22 syn`.

const PROTOCOLS = { 1: 'icmp', 2: 'igmp', 6: 'tcp', 17: 'udp', 47: 'gre', 50: 'ipsec-esp', 51: 'ipsec-ah', 58: 'icmpv6', 89: 'ospf', 132: 'sctp' };
const WITH_PORTS = new Set([6, 17, 132]);
const TCP_FLAGS = ['fin', 'syn', 'rst', 'psh', 'ack', 'urg'];
/** Extension headers of IPv6 that have a length, and the fragment header. */
const EXTENSIONS = new Set([0, 43, 60]);
const FRAGMENT = 44;

const pair = (bytes, at) => bytes[at] * 256 + bytes[at + 1];

/** The text of an IPv6 address: the longest run of at least two zeros is `::`. */
function ipv6(bytes) {
  const groups = Array.from({ length: 8 }, (_, at) => pair(bytes, 2 * at).toString(16)).join(':');
  const runs = groups.match(/(?<![0-9a-f])0(?::0)+(?![0-9a-f])/g) ?? [];
  const longest = runs.reduce((best, run) => (run.length > best.length ? run : best), '');
  if (longest === '') return groups;
  const at = groups.search(new RegExp(`(?<![0-9a-f])${longest}(?![0-9a-f])`));
  return `${groups.slice(0, at).replace(/:$/, '')}::${groups.slice(at + longest.length).replace(/^:/, '')}`;
}

/** `{text, source}` of a frame, given as its first bytes; `source` is null if there is none. */
export function describe(bytes) {
  let at = 12;
  let kind = pair(bytes, at);
  const vlans = [];
  while (kind === 0x8100 || kind === 0x88a8) {
    vlans.push(pair(bytes, at + 2) & 0xfff);
    at += 4;
    kind = pair(bytes, at);
  }
  let tags = vlans.length > 0 ? ` vlan ${vlans.join('/')}` : '';
  at += 2;
  if (kind === 0x8864) {
    tags += ` pppoe ${pair(bytes, at + 2)}`;
    kind = { 0x21: 0x0800, 0x57: 0x86dd }[pair(bytes, at + 6)];
    at += 8;
  }
  const unknown = { text: (kind === 0x0806 ? 'arp' : kind === undefined || Number.isNaN(kind) ? 'a short frame' : `ethertype 0x${kind.toString(16).padStart(4, '0')}`) + tags, source: null };
  const is6 = kind === 0x86dd;
  if ((!is6 && kind !== 0x0800) || bytes.length < at + (is6 ? 40 : 20)) return unknown;
  const address = (from) => (is6 ? ipv6(bytes.slice(from, from + 16)) : bytes.slice(from, from + 4).join('.'));
  const [source, destination] = is6 ? [address(at + 8), address(at + 24)] : [address(at + 12), address(at + 16)];
  let protocol = bytes[at + (is6 ? 6 : 9)];
  let isLaterFragment = !is6 && (pair(bytes, at + 6) & 0x1fff) !== 0;
  at += is6 ? 40 : (bytes[at] & 15) * 4;
  while (is6 && !isLaterFragment && at + 8 <= bytes.length && (EXTENSIONS.has(protocol) || protocol === FRAGMENT)) {
    if (protocol === FRAGMENT) isLaterFragment = (pair(bytes, at + 2) >> 3) !== 0;
    const length = protocol === FRAGMENT ? 8 : (bytes[at + 1] + 1) * 8;
    protocol = bytes[at];
    at += length;
  }
  const name = PROTOCOLS[protocol] ?? `protocol ${protocol}`;
  if (isLaterFragment || !WITH_PORTS.has(protocol) || bytes.length < at + 4) {
    return { text: `${name} ${source} > ${destination}${isLaterFragment ? ' fragment' : ''}${tags}`, source };
  }
  const end = (host, port) => `${is6 ? `[${host}]` : host}:${port}`;
  const flags = protocol === 6 && bytes.length > at + 13 ? TCP_FLAGS.filter((_, bit) => bytes[at + 13] & (1 << bit)).map((flag) => ` ${flag}`).join('') : '';
  return { text: `${name} ${end(source, pair(bytes, at))} > ${end(destination, pair(bytes, at + 2))}${flags}${tags}`, source };
}
