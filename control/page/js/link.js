// The link of `knockctl page`. Its secret is in the fragment of the address, which a browser sends to no server.

const BEGIN = '#link=';

/** Takes the secret out of the address, so that nobody sees, copies or reloads it. null if the address has none. */
export function takeLink() {
  if (!location.hash.startsWith(BEGIN)) return null;
  const secret = location.hash.slice(BEGIN.length);
  history.replaceState(null, '', location.pathname);
  return secret;
}
