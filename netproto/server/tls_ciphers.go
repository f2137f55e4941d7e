package server

import (
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// cipher is a suite that Go has, up to TLS 1.2, by OpenSSL's name and keywords. Those that OpenSSL 3 does not build any more, RC4 and 3DES, are not
// here; nor are those of TLS 1.3, which no list changes.
type cipher struct {
	id       uint16
	name     string
	keywords string
}

const (
	byECDSA = "ALL HIGH ECDHE EECDH kECDHE kEECDH ECDH ECDSA aECDSA "
	byRSA   = "ALL HIGH ECDHE EECDH kECDHE kEECDH ECDH aRSA "
	onlyRSA = "ALL HIGH RSA kRSA aRSA " // no forward secrecy: not among Go's defaults
)

var ciphers = []cipher{
	{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, "ECDHE-ECDSA-AES128-GCM-SHA256", byECDSA + "DEFAULT AES AES128 AESGCM TLSv1.2"},
	{tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, "ECDHE-ECDSA-AES256-GCM-SHA384", byECDSA + "DEFAULT AES AES256 AESGCM TLSv1.2"},
	{tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, "ECDHE-ECDSA-CHACHA20-POLY1305", byECDSA + "DEFAULT CHACHA20 TLSv1.2"},
	{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256, "ECDHE-ECDSA-AES128-SHA256", byECDSA + "AES AES128 SHA256 TLSv1.2"},
	{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA, "ECDHE-ECDSA-AES128-SHA", byECDSA + "DEFAULT AES AES128 SHA SHA1 TLSv1 TLSv1.0"},
	{tls.TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA, "ECDHE-ECDSA-AES256-SHA", byECDSA + "DEFAULT AES AES256 SHA SHA1 TLSv1 TLSv1.0"},
	{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, "ECDHE-RSA-AES128-GCM-SHA256", byRSA + "DEFAULT AES AES128 AESGCM TLSv1.2"},
	{tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, "ECDHE-RSA-AES256-GCM-SHA384", byRSA + "DEFAULT AES AES256 AESGCM TLSv1.2"},
	{tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256, "ECDHE-RSA-CHACHA20-POLY1305", byRSA + "DEFAULT CHACHA20 TLSv1.2"},
	{tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256, "ECDHE-RSA-AES128-SHA256", byRSA + "AES AES128 SHA256 TLSv1.2"},
	{tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA, "ECDHE-RSA-AES128-SHA", byRSA + "DEFAULT AES AES128 SHA SHA1 TLSv1 TLSv1.0"},
	{tls.TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA, "ECDHE-RSA-AES256-SHA", byRSA + "DEFAULT AES AES256 SHA SHA1 TLSv1 TLSv1.0"},
	{tls.TLS_RSA_WITH_AES_128_GCM_SHA256, "AES128-GCM-SHA256", onlyRSA + "AES AES128 AESGCM TLSv1.2"},
	{tls.TLS_RSA_WITH_AES_256_GCM_SHA384, "AES256-GCM-SHA384", onlyRSA + "AES AES256 AESGCM TLSv1.2"},
	{tls.TLS_RSA_WITH_AES_128_CBC_SHA256, "AES128-SHA256", onlyRSA + "AES AES128 SHA256 TLSv1.2"},
	{tls.TLS_RSA_WITH_AES_128_CBC_SHA, "AES128-SHA", onlyRSA + "AES AES128 SHA SHA1 SSLv3"},
	{tls.TLS_RSA_WITH_AES_256_CBC_SHA, "AES256-SHA", onlyRSA + "AES AES256 SHA SHA1 SSLv3"},
}

// elsewhere are keywords, and the words of ciphers' names, that OpenSSL knows and that name nothing which Go has.
var elsewhere = strings.Fields("MEDIUM LOW EXP EXPORT FIPS COMPLEMENTOFALL COMPLEMENTOFDEFAULT NULL aNULL eNULL DHE EDH kDHE kEDH DH ADH AECDH DSS aDSS " +
	"PSK aPSK kPSK kECDHEPSK kDHEPSK kRSAPSK SRP aSRP kSRP GOST GOST94 GOST89MAC aGOST aGOST01 kGOST MD5 DES 3DES CBC CBC3 RC2 RC4 IDEA SEED CAMELLIA " +
	"CAMELLIA128 CAMELLIA256 ARIA ARIA128 ARIA256 ARIAGCM AESCCM AESCCM8 CCM CCM8 CBCSHA SHA384 TLS 128 256 8 AES128 AES256 AES GCM CHACHA20 POLY1305 " +
	"ECDHE RSA ECDSA SHA SHA256 SUITEB128 SUITEB128ONLY SUITEB192")

func (c *cipher) is(term string) bool {
	return term == c.name || slices.Contains(strings.Fields(c.keywords), term)
}

// parseCiphers reads a list in OpenSSL's language (openssl-ciphers(1)): names and keywords, joined by + where a cipher must be all of it, with ! for
// never, - for not so far, and + or @ for an order that does not matter here, since Go has its own. What Go lacks adds nothing, as in an OpenSSL
// built without it; but a word that means nothing anywhere is a slip of the pen, and better refused than passed over.
func parseCiphers(list string) (ids []uint16, err error) {
	chosen, never := make([]bool, len(ciphers)), make([]bool, len(ciphers))
	for _, word := range strings.FieldsFunc(list, func(r rune) bool { return strings.ContainsRune(":,; ", r) }) {
		op := word[0]
		if op == '@' {
			continue
		}
		terms := strings.Split(strings.TrimLeft(word, "!-+"), "+")
		for _, term := range terms {
			if !knownCipher(term) {
				return nil, fmt.Errorf("there is no cipher %q", term)
			}
		}
		for i := range ciphers {
			if slices.ContainsFunc(terms, func(term string) bool { return !ciphers[i].is(term) }) {
				continue
			}
			switch op {
			case '!':
				never[i], chosen[i] = true, false
			case '-':
				chosen[i] = false
			case '+':
			default:
				chosen[i] = !never[i]
			}
		}
	}
	for i, c := range ciphers {
		if chosen[i] {
			ids = append(ids, c.id)
		}
	}
	if len(ids) == 0 {
		return nil, errors.New("no cipher is left")
	}
	return ids, nil
}

func knownCipher(term string) bool {
	if slices.ContainsFunc(ciphers, func(c cipher) bool { return c.is(term) }) {
		return true
	}
	for _, word := range strings.Split(strings.ReplaceAll(term, "_", "-"), "-") {
		if !slices.Contains(elsewhere, word) {
			return false
		}
	}
	return true
}
