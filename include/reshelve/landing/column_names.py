"""What columns and kinds of events are called, by language: as `column_roles.words` spells them, the surest first.

A language is added here and nowhere else. Words that mean something else in another column's language stay out.
"""

from __future__ import annotations

_COLUMNS: dict[str, dict[str, str]] = {
    "event_time": {
        "en": "event time, timestamp, datetime, date time, occurred, created, clicked, invoice date, order date, seen, when, date, time, ts, day",
        "de": "zeitstempel, zeitpunkt, datum uhrzeit, bestelldatum, kaufdatum, datum, zeit, tag",
        "nl": "tijdstip, datum tijd, besteldatum, tijd",
        "fr": "horodatage, date heure, date commande",
        "es": "fecha hora, fecha pedido, fecha",
        "it": "data ora, data ordine, data",
        "pl": "znacznik czasu, data czas, data zamowienia, czas",
        "pt": "data hora, data pedido",
    },
    "event_type": {
        "en": "event type, event name, event, action, activity, type",
        "de": "ereignistyp, ereignis, aktion, vorgang, typ",
        "nl": "gebeurtenis, actie, soort",
        "fr": "evenement",
        "es": "tipo evento, evento, accion, tipo",
        "it": "azione",
        "pl": "zdarzenie, akcja",
        "pt": "acao",
    },
    "user_id": {
        "en": "user id, customer id, client id, visitor id, user, customer, visitor, shopper, member",
        "de": "kundennummer, kunden nr, kunde, nutzer, benutzer, besucher",
        "nl": "klantnummer, klant nr, klant, gebruiker, bezoeker",
        "fr": "numero client, client, utilisateur, visiteur, acheteur",
        "es": "numero cliente, cliente, usuario, visitante",
        "it": "utente, visitatore",
        "pl": "numer klienta, klienta, klient, uzytkownik",
        "pt": "utilizador",
    },
    "session_id": {
        "en": "session id, session, visit, basket, cart id, order id, invoice, transaction, receipt, order",
        "de": "sitzung, besuch, bestellnummer, bestell nr, auftrag, rechnung, warenkorb, bon, beleg",
        "nl": "sessie, bezoek, bestelnummer, bestelling, kassabon, factuur, winkelmand",
        "fr": "visite, numero commande, commande, facture, panier, ticket",
        "es": "sesion, visita, numero pedido, pedido, factura, cesta, carrito",
        "it": "sessione, ordine, fattura, scontrino, carrello",
        "pl": "sesja, wizyta, zamowienia, zamowienie, faktura, paragon, koszyk",
        "pt": "sessao, encomenda, fatura, carrinho",
    },
    "query": {
        "en": "search query, search term, search text, query, keyword, search, term",
        "de": "suchbegriff, suchanfrage, suchwort, suche",
        "nl": "zoekterm, zoekopdracht, zoekwoord, zoekvraag",
        "fr": "terme recherche, recherche, requete, mot cle",
        "es": "termino busqueda, busqueda, consulta, palabra clave",
        "it": "termine ricerca, ricerca, parola chiave",
        "pl": "zapytanie, fraza, wyszukiwanie",
        "pt": "termo busca, busca, pesquisa, palavra chave",
    },
    "item_id": {
        "en": "item id, product id, article id, sku, asin, ean, gtin, stock code, art no, item no, item number, product number, prod id,"
        " prod nr, item, product, article, ad",
        "de": "artikelnummer, artikel nr, produktnummer, produkt nr, produkt id, art nr, artikel, produkt",
        "nl": "artikelcode, productcode",
        "fr": "code article, code produit, ref article, ref produit, produit",
        "es": "codigo articulo, codigo producto, articulo, producto",
        "it": "codice articolo, codice prodotto, articolo, prodotto",
        "pl": "kod produktu, id produktu, towar, artykul",
        "pt": "codigo produto, produto, artigo",
    },
    "item_title": {
        "en": "item title, item name, product title, product name, title, description, name",
        "de": "bezeichnung, artikelname, produktname, titel, beschreibung",
        "nl": "omschrijving, artikelnaam, productnaam, naam",
        "fr": "designation, libelle, nom produit, nom article, titre, nom",
        "es": "descripcion, nombre producto, titulo, nombre",
        "it": "descrizione, nome prodotto, titolo, nome",
        "pl": "nazwa produktu, nazwa, tytul, opis",
        "pt": "descricao, nome produto",
    },
    "position": {
        "en": "position, rank, slot, place, pos",
        "de": "platz, rang",
        "nl": "positie, plaats",
        "es": "posicion",
        "it": "posizione",
        "pl": "pozycja",
        "pt": "posicao",
    },
    "quantity": {
        "en": "quantity, qty, units",
        "de": "menge, anzahl, stueck, stueckzahl",
        "nl": "aantal, hoeveelheid",
        "fr": "quantite, qte",
        "es": "cantidad, unidades",
        "it": "quantita, pezzi",
        "pl": "ilosc, sztuk",
        "pt": "quantidade, qtd",
    },
    "price": {
        "en": "unit price, price, amount, revenue",
        "de": "einzelpreis, stueckpreis, preis, betrag, umsatz",
        "nl": "stukprijs, prijs, bedrag, omzet",
        "fr": "prix unitaire, prix, montant",
        "es": "precio unitario, precio, importe",
        "it": "prezzo unitario, prezzo, importo",
        "pl": "cena, kwota",
        "pt": "preco, valor",
    },
    "grade": {
        "en": "grade, relevance, rating",
        "de": "bewertung",
        "nl": "beoordeling",
        "es": "calificacion",
        "it": "valutazione",
        "pl": "ocena",
        "pt": "avaliacao",
    },
    "category": {
        "en": "category, department, categ",
        "de": "kategorie, warengruppe, rubrik, sortiment",
        "nl": "categorie, productgroep",
        "fr": "rayon, famille",
        "es": "categoria",
        "pl": "kategoria",
    },
    "segment": {
        "en": "country, segment, device, region, channel, platform, market",
        "de": "land, geraet, kanal, markt",
        "nl": "apparaat",
        "fr": "pays, appareil",
        "es": "pais, dispositivo",
        "it": "paese",
        "pl": "kraj",
    },
}
_EVENTS: dict[str, dict[str, str]] = {
    "impression": {
        "en": "impression, view item list, list view, shown, display, exposure",
        "de": "einblendung, anzeige, gezeigt, listenansicht",
        "nl": "getoond",
        "fr": "affichage",
        "es": "mostrado",
    },
    "cart": {
        "en": "cart, basket, add",
        "de": "warenkorb, korb",
        "nl": "winkelwagen, winkelmand",
        "fr": "panier",
        "es": "carrito, cesta",
        "it": "carrello",
        "pl": "koszyk",
        "pt": "carrinho",
    },
    "return": {
        "en": "return, refund, cancel",
        "de": "retoure, rueckgabe, storno, erstattung",
        "nl": "retour",
        "fr": "rembours",
        "es": "devolucion, reembols",
        "it": "rimbors, restitu",
        "pl": "zwrot",
        "pt": "devolucao",
    },
    "purchase": {
        "en": "purchase, buy, bought, order, transaction, checkout complete, sale",
        "de": "kauf, gekauft, bestellung, bestellt",
        "nl": "aankoop, gekocht",
        "fr": "achat, achet, commande",
        "es": "compra, pedido",
        "it": "acquist, ordine",
        "pl": "zakup, zamowien",
    },
    "click": {
        "en": "click, view, detail, select item, pdp",
        "de": "klick, geklickt, ansicht, angesehen, aufruf",
        "nl": "klik, bekeken",
        "fr": "clic, vue, consult",
        "es": "vista",
        "it": "visualizza",
        "pl": "wyswietl, odslon",
        "pt": "clique",
    },
}
_NONE_OF_OURS = {
    "en": "remove, wishlist, begin checkout, view cart, view search results, page view, login",
    "de": "entfern, merkzettel",
    "nl": "verwijder, verlanglijst",
    "fr": "supprim, retir",
    "es": "elimin, quitar",
    "it": "rimuov, rimoz",
    "pl": "usun",
    "pt": "remov",
}


def _listed(by_language: dict[str, str]) -> tuple[str, ...]:
    return tuple(name.strip() for names in by_language.values() for name in names.split(","))


COLUMN_NAMES = {role: _listed(names) for role, names in _COLUMNS.items()}
EVENT_WORDS = {event_type: _listed(names) for event_type, names in _EVENTS.items()}
NONE_OF_OURS = _listed(_NONE_OF_OURS)
